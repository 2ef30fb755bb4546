//! The file that TensorBoard draws: records of `tensorflow.Event` with scalars.
//!
//! A record is its length (u64), the masked CRC-32C of that, the bytes, and their masked CRC-32C, all little-endian
//! (TensorFlow, `core/lib/io/record_writer.h`); an event is a protobuf message (`core/util/event.proto`).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::log::StepRecord;
use crate::RecipeError;

/// The name that TensorBoard looks for; one file a run, made anew when the run goes on.
const NAME: &str = "events.out.tfevents.0.puna";

#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins the file of a run's folder, in place of an older one.
    pub(super) fn create(folder: &Path) -> Result<Self, RecipeError> {
        let path = folder.join(NAME);
        let file = File::create(&path).map_err(RecipeError::io(&path))?;
        let mut events = Self { path, file };
        // Field 3 of an event: the version of the form.
        events.record(&field(3, b"brain.Event:2"))?;
        Ok(events)
    }

    /// Adds the numbers of a step.
    pub(super) fn write(&mut self, record: &StepRecord) -> Result<(), RecipeError> {
        let mut summary = Vec::new();
        let mut scalar = |tag: &str, value: f64| summary.extend(scalar(tag, value));
        scalar("loss", record.loss.unwrap_or(f64::NAN));
        scalar("learning rate", record.lr);
        scalar("gradient norm", record.grad_norm.unwrap_or(f64::NAN));
        scalar("tokens per second", record.tokens_per_sec);
        for (source, bits) in &record.bits_per_byte {
            scalar(&format!("bits per byte/{source}"), *bits);
        }
        for (name, value) in &record.metrics {
            scalar(name, *value);
        }
        // Field 2: the step. Field 5: the summary.
        let mut event = vec![2 << 3];
        varint(record.step, &mut event);
        event.extend(field(5, &summary));
        self.record(&event)
    }

    fn record(&mut self, event: &[u8]) -> Result<(), RecipeError> {
        let len = (event.len() as u64).to_le_bytes();
        let bytes =
            [&len[..], &masked_crc(&len).to_le_bytes(), event, &masked_crc(event).to_le_bytes()]
                .concat();
        self.file.write_all(&bytes).map_err(RecipeError::io(&self.path))
    }
}

/// Field 1 of a summary: a value with a tag (its field 1) and a float (its field 2).
fn scalar(tag: &str, value: f64) -> Vec<u8> {
    let mut bytes = field(1, tag.as_bytes());
    bytes.push(2 << 3 | 5);
    bytes.extend((value as f32).to_le_bytes());
    field(1, &bytes)
}

/// A field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(bytes.len() as u64, &mut out);
    out.extend(bytes);
    out
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// The checksum of the form: CRC-32C, turned and shifted so that it may be part of what another one covers.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: records are short.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ ((crc & 1) * 0x82f6_3b78);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn records_are_framed() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path()).unwrap();
        events.write(&StepRecord { step: 300, loss: Some(2.5), ..StepRecord::default() }).unwrap();
        let bytes = std::fs::read(folder.path().join(NAME)).unwrap();
        let first = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(&bytes[12..12 + first], b"\x1a\x0dbrain.Event:2");
        let second = &bytes[12 + first + 4..];
        let len = u64::from_le_bytes(second[..8].try_into().unwrap()) as usize;
        assert_eq!(second.len(), 12 + len + 4);
        // Step 300, then a summary whose first value is the loss.
        assert_eq!(second[12..15], [0x10, 0xac, 0x02]);
        let loss = [&b"\x0a\x0b\x0a\x04loss\x15"[..], &2.5f32.to_le_bytes()].concat();
        assert_eq!(second[17..17 + loss.len()], loss);
    }
}
