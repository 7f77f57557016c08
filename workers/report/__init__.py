"""Where the time goes: the figures recorded while a loop runs, and the report made from them."""
