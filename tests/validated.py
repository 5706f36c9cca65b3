"""How many messages of each kind were validated against schemas/ in this process; the run prints the sum of all."""

from collections import Counter

VALIDATED: Counter[str] = Counter()
