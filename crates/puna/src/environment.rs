//! Every environment variable this program reads itself. (`PUNA_ISA` is read by `puna-kernels`; `NO_COLOR` and its
//! like by the terminal libraries.)

use std::path::PathBuf;

/// Where the program may keep what is worth keeping between runs but is neither configuration nor data:
/// `XDG_STATE_HOME`, else `~/.local/state`; on Windows `LOCALAPPDATA`.
pub(crate) fn state_dir() -> Option<PathBuf> {
    let folder = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")?
    } else {
        folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local").join("state")))?
    };
    Some(base.join("puna"))
}
