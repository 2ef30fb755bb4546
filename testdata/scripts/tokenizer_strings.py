"""Hard strings for tokenizer tests, the same for the same seed and Python version.

Every category below aims at one way in which a re-implementation of SentencePiece
goes wrong. `hard_strings` shuffles them, so that any prefix of the list has all kinds.
"""

import random
import sys
import unicodedata

ZWJ, VS16, WORD_MARK = "\u200d", "\ufe0f", "\u2581"
CONTROL_LIKE = [
    "<s>", "</s>", "<unk>", "<pad>", "<0x0A>", "<0x41>", "<0xFF>", "<0x>", "< s >", "<s", "/s>", "<<s>>",
    "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<S>", "<|im_start|>", "<|endoftext|>", "\u2581<s>", "<s>\u2581",
]  # fmt: skip
SPACES = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\r", "\u00a0", "\u3000", "\u2003", "\u200b", "\ufeff", "\x0b",
          "\x0c", "\x85", "\u2028", WORD_MARK, " " + WORD_MARK, WORD_MARK + " "]  # fmt: skip
# Scripts that Unicode gained after 14.0, the version of Python 3.11: Kawi, Nag Mundari, Todhri, Garay, Tulu-Tigalari,
# Sunuwar, Gurung Khema, Kirat Rai, Ol Onal, Sidetic, Tolong Siki, Beria Erfe, Tai Yo.
NEWER_SCRIPTS = [
    (0x11F00, 0x11F59), (0x1E4D0, 0x1E4F9), (0x105C0, 0x105F3), (0x10D40, 0x10D8F), (0x11380, 0x113E2),
    (0x11BC0, 0x11BF9), (0x16100, 0x16139), (0x16D40, 0x16D79), (0x1E5D0, 0x1E5FF), (0x10940, 0x10959),
    (0x11DB0, 0x11DE9), (0x16EA0, 0x16ED3), (0x1E6C0, 0x1E6FF),
]  # fmt: skip


def letters_by_script():
    """Groups the letters, marks and numbers of Unicode by the first word of their names: one group per script."""
    groups = {}
    for code in range(0xA0, sys.maxunicode + 1):
        c = chr(code)
        if unicodedata.category(c)[0] in "LMN":
            groups.setdefault(unicodedata.name(c, "?").split()[0].split("-")[0], []).append(c)
    return {name: chars for name, chars in sorted(groups.items()) if len(chars) >= 3}


def emoji(r):
    faces = [chr(c) for c in range(0x1F300, 0x1FAF6) if unicodedata.category(chr(c)) == "So"]
    skins = [chr(c) for c in range(0x1F3FB, 0x1F400)]
    family = ["\U0001f468", "\U0001f469", "\U0001f467", "\U0001f466", "\u2764" + VS16, "\U0001f692", "\U0001f3f3" + VS16]
    flag = lambda: "".join(chr(0x1F1E6 + r.randrange(26)) for _ in range(2))
    kinds = [
        lambda: r.choice(faces),
        lambda: r.choice(faces) + r.choice(skins),
        lambda: ZWJ.join(r.choice(family) + r.choice(["", r.choice(skins)]) for _ in range(r.randint(2, 5))),
        flag,
        lambda: r.choice("0123456789#*") + VS16 + "\u20e3",
        lambda: r.choice([ZWJ, VS16, "\ufe0e", r.choice(skins)]),
        lambda: r.choice([" ", "a", "the ", "!"]),
    ]
    return "".join(r.choice(kinds)() for _ in range(r.randint(1, 12)))


def any_code_point(r, top):
    while True:
        code = r.randrange(top)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def spaces(r, words):
    parts = []
    for _ in range(r.randint(1, 10)):
        parts.append(r.choice(SPACES) * r.choice([1, 1, 1, 2, 3, 4, 7, 15, 16, 17, 40]))
        if r.random() < 0.6:
            parts.append(r.choice(words))
    return "".join(parts)


def digits(r):
    kinds = [
        lambda: str(r.randrange(10 ** r.randint(1, 25))),
        lambda: f"{r.uniform(-1e6, 1e6):.{r.randint(0, 9)}f}",
        lambda: f"{r.randrange(10**9):,}",
        lambda: f"{r.randrange(24):02}:{r.randrange(60):02}",
        lambda: f"0x{r.randrange(2**48):x}",
        lambda: "".join(chr(r.choice([0x660, 0x966, 0xFF10, 0x1D7CE]) + r.randrange(10)) for _ in range(4)),
        lambda: r.choice("½²③Ⅻ٪%$€°"),
    ]
    return r.choice(["", " ", ", "]).join(r.choice(kinds)() for _ in range(r.randint(1, 6)))


def long_word(r, scripts, n):
    alphabet = r.choice(["ab", "aet", "abcdefghijklmnopqrstuvwxyz", "=-_", "\n ", r.choice(list(scripts.values()))])
    return "".join(r.choice(alphabet) for _ in range(n))


def repeated(r, words):
    return (r.choice(words) + r.choice(["", " ", "\n"])) * r.randint(2, 30)


def prose(r, text):
    start = r.randrange(len(text) - 400)
    chars = list(text[start : start + r.randint(1, 200)])
    for _ in range(r.choice([0, 0, 1, 4])):
        chars[r.randrange(len(chars))] = r.choice(["", " ", "\n", "é", "\u0301", any_code_point(r, 0x3000)])
    return "".join(chars)


def marks(r, words):
    word = "".join(c + r.choice(["", "", chr(r.randrange(0x300, 0x370))]) for c in r.choice(words) + r.choice("äößçñøåÆ"))
    return unicodedata.normalize(r.choice(["NFC", "NFD", "NFKC", "NFKD"]), word + " " + r.choice(words))


def ascii_noise(r):
    return "".join(chr(r.randrange(32, 127)) for _ in range(r.randint(1, 60)))


def hard_strings(text, pieces, seed):
    """Over 20,000 strings; `text` is prose to cut from, `pieces` a vocabulary to glue together."""
    r = random.Random(seed)
    scripts = letters_by_script()
    words = sorted(set(text[:200_000].split()))
    out = ["", " ", "  ", "\n", "\0", WORD_MARK, WORD_MARK * 2, "a", " a", "a ", "\ufffd", "\ufffe", "\U0010ffff"]
    for chars in [*scripts.values(), *([chr(c) for c in range(a, b + 1)] for a, b in NEWER_SCRIPTS)]:
        for _ in range(12):
            extra = r.choice(["", " ", " 1", "a", "."])
            out.append("".join(r.choice(chars) + r.choice(["", "", "", extra]) for _ in range(r.randint(1, 24))))
    makers = [
        (1500, lambda: emoji(r)),
        (2500, lambda: spaces(r, words)),
        (1500, lambda: digits(r)),
        (500, lambda: long_word(r, scripts, r.randint(40, 200))),
        (6, lambda: long_word(r, scripts, 4000)),
        (2500, lambda: "".join(r.choice(CONTROL_LIKE + SPACES + words[::50]) for _ in range(r.randint(1, 8)))),
        (3500, lambda: prose(r, text)),
        (1000, lambda: "".join(any_code_point(r, r.choice([0x100, 0x3000, 0x20000, 0x110000])) for _ in range(r.randint(1, 16)))),
        (1500, lambda: ascii_noise(r)),
        (2500, lambda: "".join(r.choice(pieces) for _ in range(r.randint(1, 10))).replace(WORD_MARK, r.choice([" ", " ", WORD_MARK]))),
        (1000, lambda: marks(r, words)),
        (500, lambda: repeated(r, words)),
    ]  # fmt: skip
    for count, make in makers:
        out += [make() for _ in range(count)]
    for _ in range(2500):
        mix = [emoji(r), spaces(r, words), digits(r), r.choice(CONTROL_LIKE), prose(r, text)[:40], marks(r, words)]
        out.append("".join(r.sample(mix, r.randint(2, 4))))
    assert all(s.encode("utf-8").decode("utf-8") == s for s in out)
    r.shuffle(out)
    return out
