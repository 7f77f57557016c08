"""Create and map anonymous shared memory, which processes pass to each other as a file descriptor instead of a name.

The process that creates the memory maps it, and sends the descriptor over a socket. Each process closes its descriptor
when it no longer needs it. The kernel frees the memory with the last mapping and descriptor, however the processes end.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import weakref
from typing import Any

import numpy as np

from workers import limits
from workers.errors import PlatformError

from .memory_limit import check_available

PAGE = mmap.PAGESIZE
_LARGE_NBYTES = 16 << 20  # from this size on, available memory is checked first, which takes 0.1 ms

# Not mmap.mmap: before Python 3.13 it keeps a descriptor open for its lifetime, one for each slot.
_libc: Any = None
if os.name == "posix":
    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    _libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    _libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    _libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


def create(nbytes: int, name: str = "prefetch", header_nbytes: int = 0) -> int:
    """Create ``nbytes`` of zeroed shared memory, and return its file descriptor, which the caller has to close.

    Args:
        name: a label, which Linux shows in ``/proc/PID/fd``, e.g. ``/memfd:prefetch (deleted)``.
        header_nbytes: the size of a header, which is added to ``nbytes``. Errors state ``nbytes`` without the header.

    Raises:
        DoesNotFit: less memory than ``nbytes`` is available.
        PlatformError: this platform has no known anonymous shared memory, does not allow a piece this large, or no
            file descriptor is left.
    """
    if nbytes >= _LARGE_NBYTES:
        check_available(nbytes)
    try:
        descriptor = _create(name)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise PlatformError(
            error.errno,
            f"shared memory needs a file descriptor for a moment, but all {limits.descriptors()} are in use (ulimit "
            "-n): close files, or raise the limit",
        ) from error
    try:
        os.ftruncate(descriptor, header_nbytes + nbytes)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EFBIG:
            raise _too_large(nbytes) from error
        raise
    return descriptor


def _create(name: str) -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create(name, os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
                raise
            raise _unknown(
                f"memfd_create() is refused ({error.strerror}), probably by a container's seccomp profile"
            ) from error
    if sys.platform == "darwin":
        return _create_unlinked()
    if sys.platform == "linux":
        raise _unknown("this Python was built without os.memfd_create, probably with a glibc older than 2.27")
    raise _unknown(f"they need Linux or macOS, not {sys.platform!r}")


def _unknown(reason: str) -> PlatformError:
    return PlatformError(
        errno.ENOSYS,
        f'worker processes cannot get shared memory: {reason}. Use nb_workers=0 or executor="thread" here',
    )


def _too_large(nbytes: int) -> PlatformError:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return PlatformError(
        errno.EFBIG,
        f"{nbytes:,} bytes of shared memory cannot be allocated: files may have no more than {limit:,} bytes here "
        "(RLIMIT_FSIZE), and shared memory counts as a file. Raise the limit (ulimit -f unlimited), or use "
        'nb_workers=0 or executor="thread"',
    )


def _create_unlinked() -> int:
    import secrets
    from _posixshmem import shm_open, shm_unlink  # type: ignore[import-not-found,unused-ignore]

    name = f"/prefetch-{secrets.token_hex(8)}"
    descriptor: int = shm_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
    shm_unlink(name)
    return descriptor


class _Mapped(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to a buffer of shared memory, with the mapping to remove when the buffer's last view is gone."""

    __slots__ = ("address", "nbytes")
    address: int
    nbytes: int


_mapped: dict[int, _Mapped] = {}  # {address: its mapping}; keeps the weak references alive until they fire


def _unmap(mapped: Any, libc: Any = _libc, known: dict[int, _Mapped] = _mapped) -> None:
    del known[mapped.address]  # before the address can be used again
    libc.munmap(mapped.address, mapped.nbytes)


def attach(descriptor: int, nbytes: int, writable: bool = True, header_nbytes: int = 0, private: bool = False) -> Any:
    """Map the shared memory of file ``descriptor`` into this process. The caller still has to close the descriptor.

    Args:
        nbytes: the number of bytes after the header.
        writable: False for a read-only mapping.
        header_nbytes: the size of the header, which comes first.
        private: True for a copy-on-write mapping: this process may write to it, and no other process sees the changes.

    Returns:
        A buffer of ``header_nbytes + nbytes`` bytes, which is unmapped when its last view is gone. Make views of a
        read-only mapping by ``view(buffer).toreadonly()``.

    Raises:
        MemoryError: the address space or the number of mappings is used up.
    """
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable or private else 0)
    kind = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0) if private else mmap.MAP_SHARED
    mapped_nbytes = header_nbytes + nbytes
    address = _libc.mmap(None, mapped_nbytes, access, kind, descriptor, 0)
    if address is None or address == _MAP_FAILED:
        code = ctypes.get_errno()
        if code == errno.ENOMEM:
            raise MemoryError(f"cannot map {nbytes:,} bytes of shared memory (out of memory or of mappings)")
        raise OSError(code, f"cannot map {nbytes:,} bytes of shared memory: {os.strerror(code)}")
    if hasattr(mmap, "MADV_HUGEPAGE"):  # only a hint: many kernels disable huge pages for shared memory
        _libc.madvise(address, mapped_nbytes, mmap.MADV_HUGEPAGE)
    buffer = (ctypes.c_ubyte * mapped_nbytes).from_address(address)
    mapped = _Mapped(buffer, _unmap)
    mapped.address, mapped.nbytes = address, mapped_nbytes
    _mapped[address] = mapped
    return buffer


def view(buffer: Any) -> memoryview:
    """Return the bytes of ``buffer``, a result of :func:`attach`, as a memoryview."""
    return np.frombuffer(buffer, np.uint8).data


def address_of(buffer: Any) -> int:
    """Return the memory address of the first byte of an array or other buffer."""
    array = buffer if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, np.uint8)
    return int(array.__array_interface__["data"][0])


def is_equal(one: Any, other: Any) -> bool:
    """Return True if two dense arrays of equal size hold the same bytes, compared as fast as memory can be read."""
    return bool(_libc.memcmp(address_of(one), address_of(other), one.nbytes) == 0)


#: If this process has more mappings than this, batches are copied out of their slots. Linux allows a process 65,530.
MAX_MAPPED = 20_000


def num_mapped() -> int:
    """Return the number of pieces of shared memory that this process has mapped now."""
    return len(_mapped)
