"""Word lists of the demo language. Written for this repository."""

from __future__ import annotations

#: Words and marks of the sentence forms in `corpus`.
GRAMMAR = (
    ".", ":", ",", "a", "about", "and", "end", "for", "has", "in", "is", "it", "keep", "likes", "my",
    "near", "of", "set", "the", "this", "who",
)  # fmt: skip

NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven",
    "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip

OPENERS = (
    "write", "please write", "tell me", "give me", "could you write", "i would like", "we need",
    "compose", "can you give me",
)  # fmt: skip

AUDIENCES = (
    "child", "teacher", "friend", "neighbour", "traveller", "gardener", "student", "doctor",
    "carpenter", "visitor", "painter", "librarian",
)  # fmt: skip

PLACES = (
    "harbour", "valley", "market", "village", "castle", "station", "meadow", "island", "kitchen",
    "workshop", "tower", "cellar", "attic", "orchard", "school", "museum", "bakery", "mill",
    "bridge", "square", "library", "stable",
)  # fmt: skip

TONES = ("plain", "friendly", "formal", "cheerful", "serious", "simple", "polite", "vivid")

RELATIVES = ("sister", "brother", "uncle", "aunt", "cousin", "grandmother", "daughter", "son")

TOPICS = (
    "river", "lantern", "clock", "garden", "ship", "mountain", "violin", "horse", "letter", "storm",
    "mirror", "wolf", "train", "compass", "winter", "bicycle", "candle", "forest", "piano", "robot",
    "kettle", "map", "owl", "island", "rocket", "teapot", "dragon", "umbrella", "telescope", "fox",
    "carpet", "balloon", "turtle", "pencil", "lake", "whistle", "basket", "comet", "anchor", "quilt",
)  # fmt: skip

NOUNS = (
    "door", "stone", "bird", "window", "road", "tree", "wheel", "shadow", "song", "rope", "cloud",
    "boat", "fire", "bell", "field", "key", "wall", "star", "leaf", "coin", "hat", "book", "cup",
    "rain", "path", "fence", "chair", "well", "flag", "barrel", "ladder", "feather", "shell", "gate",
    "cart", "drum", "lamp", "blanket", "hill", "spoon",
)  # fmt: skip

NAMES = (
    "anna", "bruno", "clara", "david", "emil", "flora", "greta", "hugo", "ida", "jonas", "karla",
    "leon", "mina", "nora", "otto", "paula",
)  # fmt: skip

VERBS = (
    "follows", "carries", "finds", "paints", "watches", "opens", "repairs", "hides", "leaves",
    "remembers", "builds", "moves", "cleans", "measures", "guards", "borrows", "lifts", "covers",
    "meets", "turns", "keeps", "holds", "draws", "brings",
)  # fmt: skip

#: Adjectives say how many parts are still to come, so that the text carries its plan from sentence to
#: sentence: row 0 for the last part, then one part to come, two or three, four to six, seven or more.
ADJECTIVES = (
    ("quiet", "sleepy", "soft", "faded", "gentle", "settled"),
    ("golden", "tired", "mellow", "slow", "dusty", "pale"),
    ("bright", "busy", "clever", "round", "warm", "steady"),
    ("curious", "sharp", "restless", "tall", "green", "lively"),
    ("strange", "distant", "hidden", "fresh", "wild", "enormous"),
)

#: Adverbs say how long the parts are: short, medium, long.
ADVERBS = (
    ("quickly", "briskly", "suddenly", "promptly"),
    ("calmly", "evenly", "plainly", "firmly"),
    ("patiently", "thoroughly", "carefully", "gradually"),
)
