def environment(*a):
    return {}


def write(b, records, *a):
    pass
