"""An account group as the API lists it."""

import msgspec


class AccountGroup(msgspec.Struct, frozen=True, gc=False):
    """One account group that the token has access to."""

    aid: str
    """Empty if unknown: requests without `aid` use the token's own group."""
    name: str = ""
    current: bool = False
    """Whether it is the token's own group."""
