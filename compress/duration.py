"""Durations as people say them."""


def about(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> about(12.3), about(150), about(7800)
    ('about 12 s', 'about 2.5 min', 'about 2.2 h')
    """
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.1f} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"
