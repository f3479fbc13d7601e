//! Where rows come from: a file or standard input, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::failure::{Exit, Failure, file_failure};

const BUFFER_BYTES: usize = 256 * 1024;
const GZIP: &[u8] = &[0x1F, 0x8B];
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];

/// Rows to read, and those that an interrupted run has written.
pub(crate) struct Source {
    /// The input, compressed or not.
    pub(super) input: Box<dyn Read + Send>,
    /// The output of an interrupted run over the same input.
    pub(super) resume: Option<Box<dyn Read + Send>>,
}

impl Source {
    /// The rows of `input`, compressed or not.
    pub(crate) fn new(input: impl Read + Send + 'static) -> Source {
        Source {
            input: Box::new(input),
            resume: None,
        }
    }
}

/// An input that is open.
pub(super) struct Input {
    /// The bytes as they are, compressed or not.
    pub(super) reader: Box<dyn Read + Send>,
    /// How many there are, if that is known.
    pub(super) bytes: Option<u64>,
    /// What changes when a regular file is another or another's content: device, inode, size, time of the last change.
    pub(super) identity: Option<[i64; 5]>,
}

/// Opens a file, or standard input for none and for `-`.
pub(super) fn open(path: Option<&Path>) -> Result<Input, Failure> {
    let Some(path) = named(path) else {
        if io::IsTerminal::is_terminal(&io::stdin()) {
            return Err(Failure::new(Exit::Usage, "there is no input")
                .help("name a file with --input, or pipe it in"));
        }
        return Ok(Input {
            reader: Box::new(io::stdin()),
            bytes: None,
            identity: None,
        });
    };
    let failed = |error: io::Error| file_failure("read", path, &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::new(
            Exit::Usage,
            format_args!("`{}` is a directory", path.display()),
        )
        .help("--input names the file to read"));
    }
    let identity = [
        metadata.dev().cast_signed(),
        metadata.ino().cast_signed(),
        metadata.size().cast_signed(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ];
    Ok(Input {
        reader: Box::new(file),
        bytes: metadata.is_file().then_some(metadata.len()),
        identity: metadata.is_file().then_some(identity),
    })
}

/// The path of a file; none for `-`.
pub(super) fn named(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| *path != Path::new("-"))
}

/// The content, whether gzip, Zstandard or neither: the first bytes tell. Reads them, and so blocks.
///
/// # Errors
/// The input cannot be read.
pub(super) fn decompress(mut input: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut start = Vec::new();
    input.by_ref().take(4).read_to_end(&mut start)?;
    let (is_gzip, is_zstd) = (start.starts_with(GZIP), start.starts_with(ZSTD));
    let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(start).chain(input));
    let content: Box<dyn Read + Send> = if is_gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::Decoder::with_buffer(whole)?)
    } else {
        return Ok(Box::new(whole));
    };
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, content)))
}

/// How a file is compressed, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Not.
    Plain,
    /// `.gz`.
    Gzip,
    /// `.zst`.
    Zstd,
}

/// The compression that a file's name asks for, and the name without its extension.
pub(super) fn compression_of(path: &Path) -> (Compression, PathBuf) {
    let compression = match extension(path).as_str() {
        "gz" => Compression::Gzip,
        "zst" => Compression::Zstd,
        _ => return (Compression::Plain, path.to_owned()),
    };
    (compression, path.with_extension(""))
}

/// Whether a file's name says that it holds lines of JSON (true) or CSV (false).
pub(super) fn is_json_lines(path: &Path) -> Option<bool> {
    match extension(&compression_of(path).1).as_str() {
        "jsonl" | "ndjson" | "json" => Some(true),
        "csv" => Some(false),
        _ => None,
    }
}

fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        decompress(Box::new(Cursor::new(bytes)))?.read_to_end(&mut content)?;
        Ok(content)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_first_bytes_tell_how_the_input_is_compressed() {
        let text = "id,email\n1,ada\n".repeat(10_000).into_bytes();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        assert!(read(text.clone()).unwrap() == text);
        assert!(read(gzip(&text)).unwrap() == text);
        assert!(read(zstd.clone()).unwrap() == text);
        // Files that were put one behind the other.
        let twice = [&text[..], &text].concat();
        assert!(read([gzip(&text), gzip(&text)].concat()).unwrap() == twice);
        assert!(read([zstd.clone(), zstd.clone()].concat()).unwrap() == twice);
        for short in ["", "i", "\u{1f}"] {
            assert_eq!(read(short.into()).unwrap(), short.as_bytes());
        }
        // Cut off or damaged.
        for mut bytes in [gzip(&text), zstd] {
            bytes.truncate(bytes.len() - 5);
            assert!(read(bytes.clone()).is_err());
            let half = bytes.len() / 2;
            bytes[half] ^= 0xFF;
            assert!(read(bytes).is_err());
        }
    }

    #[test]
    fn names_tell_form_and_compression() {
        let of = |name: &str| {
            (
                compression_of(Path::new(name)).0,
                is_json_lines(Path::new(name)),
            )
        };
        assert_eq!(of("a.csv"), (Compression::Plain, Some(false)));
        assert_eq!(of("a.JSONL.gz"), (Compression::Gzip, Some(true)));
        assert_eq!(of("a.ndjson.zst"), (Compression::Zstd, Some(true)));
        assert_eq!(of("a.csv.ZST"), (Compression::Zstd, Some(false)));
        assert_eq!(of("a.gz"), (Compression::Gzip, None));
        assert_eq!(of("a"), (Compression::Plain, None));
    }
}
