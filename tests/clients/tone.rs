//! Tones: made, and recognised again after they have crossed the network.
//!
//! The Goertzel algorithm gives the energy at one frequency. A window counts as that tone when most of its energy
//! is there; silence, noise, clicks and other tones don't.

use std::f64::consts::TAU;
use std::path::Path;
use std::{fs, io};

/// Samples per second of everything here: PCMU's.
pub(crate) const RATE: u32 = 8000;
/// Samples of one window: 0.1 s, five packets.
const WINDOW: usize = 800;

/// Writes `seconds` of a sine of `frequency` as a WAV file: mono, 16 bit.
pub(crate) fn write(path: &Path, frequency: f64, seconds: u32) -> io::Result<()> {
    let samples = (0..RATE * seconds).flat_map(|at| sample(frequency, at).to_le_bytes());
    let data: Vec<u8> = samples.collect();
    let length = u32::try_from(data.len()).expect("minutes, not days");
    let mut wav = Vec::from(*b"RIFF");
    wav.extend((36 + length).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(RATE.to_le_bytes());
    wav.extend((RATE * 2).to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(length.to_le_bytes());
    wav.extend(data);
    fs::write(path, wav)
}

#[allow(clippy::cast_possible_truncation)] // between -10,000 and 10,000
fn sample(frequency: f64, at: u32) -> i16 {
    (10_000.0 * (TAU * frequency * f64::from(at) / f64::from(RATE)).sin()) as i16
}

/// The samples of a WAV file (mono, 16 bit) that may still be growing: what its header says of its length is ignored.
pub(crate) fn read(path: &Path) -> Vec<i16> {
    let bytes = fs::read(path).unwrap_or_default();
    let start = bytes.windows(4).position(|window| window == b"data").map_or(bytes.len(), |at| at + 8);
    let samples = bytes.get(start..).unwrap_or_default();
    samples.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// How many windows of `samples` are a tone of `frequency`.
pub(crate) fn windows_of(frequency: f64, samples: &[i16]) -> usize {
    samples.chunks_exact(WINDOW).filter(|window| share(frequency, window) > 0.8).count()
}

/// Which part of the energy of `window` is at `frequency`: 0 to 1.
fn share(frequency: f64, window: &[i16]) -> f64 {
    let turn = 2.0 * (TAU * frequency / f64::from(RATE)).cos();
    let (mut last, mut before, mut energy) = (0.0, 0.0, 0.0);
    for &sample in window {
        let sample = f64::from(sample);
        (last, before) = (sample + turn * last - before, last);
        energy += sample * sample;
    }
    // What a line or a codec leaves of silence is no tone.
    if energy < f64::from(RATE) * 100.0 {
        return 0.0;
    }
    let power = last * last + before * before - turn * last * before;
    #[allow(clippy::cast_precision_loss)] // a few hundred samples
    let whole = energy * window.len() as f64 / 2.0;
    power / whole
}

#[test]
fn a_tone_is_recognised_and_others_are_not() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    write(file.path(), 440.0, 2).expect("it is writable");
    let samples = read(file.path());
    assert_eq!(samples.len(), 16_000);
    assert_eq!(windows_of(440.0, &samples), 20);
    assert_eq!(windows_of(1000.0, &samples), 0);
    assert_eq!(windows_of(440.0, &[0; 16_000]), 0);
    // Two tones at once are neither.
    let mixed: Vec<i16> = (0..16_000).map(|at| sample(440.0, at) + sample(1000.0, at)).collect();
    assert_eq!((windows_of(440.0, &mixed), windows_of(1000.0, &mixed)), (0, 0));
}
