//! Every environment variable this program reads itself. (`PUNA_ISA` is read by `puna-kernels`; `NO_COLOR` and its
//! like by the terminal libraries.)

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use puna_hub::OpenOptions;
use puna_hub::pull::HubOptions;
use puna_hub::store::Store;

use crate::failure::Usage;

/// Where the program may keep what is worth keeping between runs but is neither configuration nor data:
/// `XDG_STATE_HOME`, else `~/.local/state`; on Windows `LOCALAPPDATA`.
pub(crate) fn state_dir() -> Option<PathBuf> {
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")?
    } else {
        folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local").join("state")))?
    };
    Some(base.join("puna"))
}

/// Where pulled models lie: `PUNA_HOME`, else `puna` in the system's folder for a user's data: `XDG_DATA_HOME` or
/// `~/.local/share`, on Windows `LOCALAPPDATA`, on macOS `~/Library/Application Support`.
pub(crate) fn store() -> Option<Store> {
    // A path, which need not be Unicode.
    if let Some(own) = std::env::var_os("PUNA_HOME").filter(|own| !own.is_empty()) {
        return Some(Store::new(own));
    }
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")?
    } else if cfg!(target_os = "macos") {
        folder("HOME")?.join("Library").join("Application Support")
    } else {
        folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local").join("share")))?
    };
    Some(Store::new(base.join("puna")))
}

/// Where `puna serve` listens, if `--host` does not say: `PUNA_HOST`.
pub(crate) fn host() -> anyhow::Result<Option<IpAddr>> {
    let Some(host) = text("PUNA_HOST") else { return Ok(None) };
    match host.parse() {
        Ok(address) => Ok(Some(address)),
        Err(e) => bail!(Usage(format!("PUNA_HOST={host}: {e}"))),
    }
}

/// Whether `puna serve` may listen where others reach it without asking for a key: `PUNA_ALLOW_ANYONE=1`, as
/// `--allow-anyone`.
pub(crate) fn allow_anyone() -> bool {
    text("PUNA_ALLOW_ANYONE").is_some_and(|value| value == "1")
}

/// [`store`], for commands that cannot do without.
pub(crate) fn store_or_fail() -> anyhow::Result<Store> {
    store().context("no folder to keep models in: set PUNA_HOME")
}

/// How to open a MODEL, which may be a pulled one: with this tokenizer, or the model's own, and with these adapters.
pub(crate) fn open_options(tokenizer: Option<&PathBuf>, lora: Option<&PathBuf>) -> OpenOptions {
    let (tokenizer, lora) = (tokenizer.cloned(), lora.cloned());
    OpenOptions { tokenizer, lora, store: store(), ..OpenOptions::default() }
}

/// How to reach the hub, by the names that huggingface.co's own programs use: `HF_ENDPOINT`, `HF_TOKEN` (else the file
/// `HF_TOKEN_PATH`, else `token` in `HF_HOME`, where `huggingface-cli login` puts it), `HF_HUB_OFFLINE`; and the usual
/// `HTTPS_PROXY` (`HTTP_PROXY` for an `http` endpoint), `ALL_PROXY` and `NO_PROXY`, in capitals or not.
pub(crate) fn hub_options() -> HubOptions {
    let defaults = HubOptions::default();
    let endpoint = text("HF_ENDPOINT").unwrap_or(defaults.endpoint);
    let names = if endpoint.starts_with("http:") {
        ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    } else {
        ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    };
    let offline = text("HF_HUB_OFFLINE").map(|value| value.to_ascii_lowercase());
    HubOptions {
        endpoint,
        token: text("HF_TOKEN").or_else(saved_token),
        offline: offline.is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.as_str())),
        proxy: names.into_iter().find_map(text),
        no_proxy: ["NO_PROXY", "no_proxy"].into_iter().find_map(text).unwrap_or_default(),
        ..defaults
    }
}

/// The token that a login left behind.
fn saved_token() -> Option<String> {
    let home = || {
        let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(user_home()?.join(".cache")));
        text("HF_HOME").map(PathBuf::from).or_else(|| Some(cache()?.join("huggingface")))
    };
    let path = text("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home()?.join("token")))?;
    let token = std::fs::read_to_string(path).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

fn user_home() -> Option<PathBuf> {
    folder(if cfg!(windows) { "USERPROFILE" } else { "HOME" })
}

/// A variable that holds something.
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// A variable that holds the path of a folder from the root.
fn folder(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(name)?);
    path.is_absolute().then_some(path)
}
