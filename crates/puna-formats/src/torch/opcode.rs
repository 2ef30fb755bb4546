//! The pickle instructions that files of `torch.save` use, of protocols 2 to 5 (Python's `pickletools`
//! documents them all). An instruction that is not here is refused.

macro_rules! opcodes {
    ($($name:ident = $byte:literal),* $(,)?) => { $(pub(super) const $name: u8 = $byte;)* };
}

opcodes! {
    PROTO = 0x80,
    FRAME = 0x95,
    STOP = b'.',
    MARK = b'(',
    POP = b'0',
    POP_MARK = b'1',
    NONE = b'N',
    NEW_TRUE = 0x88,
    NEW_FALSE = 0x89,
    BIN_INT = b'J',
    BIN_INT1 = b'K',
    BIN_INT2 = b'M',
    LONG1 = 0x8a,
    BIN_FLOAT = b'G',
    BIN_UNICODE = b'X',
    SHORT_BIN_UNICODE = 0x8c,
    EMPTY_TUPLE = b')',
    TUPLE = b't',
    TUPLE1 = 0x85,
    TUPLE2 = 0x86,
    TUPLE3 = 0x87,
    EMPTY_LIST = b']',
    APPEND = b'a',
    APPENDS = b'e',
    EMPTY_DICT = b'}',
    SET_ITEM = b's',
    SET_ITEMS = b'u',
    BIN_PUT = b'q',
    LONG_BIN_PUT = b'r',
    MEMOIZE = 0x94,
    BIN_GET = b'h',
    LONG_BIN_GET = b'j',
    GLOBAL = b'c',
    STACK_GLOBAL = 0x93,
    BIN_PERS_ID = b'Q',
    REDUCE = b'R',
    BUILD = b'b',
}
