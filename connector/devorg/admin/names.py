"""Made-up names, built of syllables: of nobody, and the same for the same random numbers."""

from random import Random

_ONSETS = ("b", "br", "d", "dr", "f", "g", "k", "kr", "l", "m", "n", "p", "r", "s", "t", "tr", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u", "ia", "eo")
_CODAS = ("", "", "", "l", "n", "r", "s", "x")
_LEGAL_FORMS = ("Works", "Supply", "Systems", "Trading", "Labs", "Logistics", "Partners", "Foods")


def word(rng: Random, syllables: int) -> str:
    """A capitalised word of so many syllables."""
    parts = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
    return ("".join(parts) + rng.choice(_CODAS)).capitalize()


def company(rng: Random) -> str:
    """Name of a company."""
    return f"{word(rng, 3)} {rng.choice(_LEGAL_FORMS)}"


def email(first: str, last: str, number: int) -> str:
    """An address in a domain that is reserved for examples."""
    return f"{first}.{last}.{number}@example.com".lower()


def phone(rng: Random) -> str:
    """A number of the range that is reserved for fiction."""
    return f"+1 555 01{rng.randrange(100):02d} {rng.randrange(10_000):04d}"
