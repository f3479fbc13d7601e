//! `fieldkeep encrypt`, `decrypt` and `reencrypt`: one value.

use std::io::{IsTerminal, Read, Write};

use clap::Args;
use data_encoding::BASE64;
use fieldkeep_client::{Client, Decrypted, FieldCall};
use fieldkeep_crypto::ciphertext::{Ciphertext, MAX_PLAINTEXT_BYTES, decode_text, encode_text};
use serde_json::json;

use super::failure::{Exit, Failure};
use super::output::{Format, print_bytes, print_json, print_line};

/// More than any text form of a ciphertext has.
const MAX_INPUT_BYTES: usize = 2 * MAX_PLAINTEXT_BYTES;

/// Encrypt one value, from standard input or an argument.
///
/// Standard input is the safer way: other users of the machine can see arguments, and shells keep them.
/// It is taken byte for byte, a line end too, except when it is typed on a terminal.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo -n ada@example.com | fieldkeep encrypt --key pii --field customer.email --context id=42
  fieldkeep encrypt --key pii --field customer.email --context id=42 < value.bin")]
pub(crate) struct EncryptArgs {
    /// The key to encrypt under
    #[arg(long)]
    key: String,
    #[command(flatten)]
    bound: Bound,
    /// The value; leave it out to give it on standard input, which is safer
    value: Option<String>,
}

/// Decrypt one value. Prints its bytes and nothing else; on a terminal a line end too.
///
/// Field and context must be those it was encrypted with; the ciphertext names its key. Who may see the field only masked
/// gets what its mask shows, and a note on standard error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep decrypt --field customer.email --context id=42 fk1:_gHkx...
  fieldkeep decrypt --field customer.email --context id=42 < email.txt")]
pub(crate) struct DecryptArgs {
    #[command(flatten)]
    bound: Bound,
    /// The ciphertext, fk1: text; leave it out to give it on standard input
    ciphertext: Option<String>,
}

/// Bring one ciphertext under the primary version of its key, or under another key.
///
/// The plaintext never leaves the service. A ciphertext that is current already is printed as it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  fieldkeep reencrypt --field customer.email --context id=42 < old.txt > new.txt")]
pub(crate) struct ReencryptArgs {
    /// The key to encrypt under [default: the ciphertext's own]
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    #[command(flatten)]
    bound: Bound,
    /// The ciphertext, fk1: text; leave it out to give it on standard input
    ciphertext: Option<String>,
}

/// What a value is bound to.
#[derive(Debug, Args)]
struct Bound {
    /// The field, for example customer.email
    #[arg(long)]
    field: String,
    /// A part of the encryption context; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    context: Vec<(String, String)>,
}

/// A name and a value of an encryption context.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text
        .split_once('=')
        .ok_or("write it as NAME=VALUE, for example id=42")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Bound {
    fn call<'a>(&'a self, client: &'a Client, key: &'a str) -> FieldCall<'a> {
        let call = client.field(key, &self.field);
        self.context
            .iter()
            .fold(call, |call, (name, value)| call.context(name, value))
    }
}

/// Runs `encrypt`.
pub(crate) async fn encrypt(
    args: EncryptArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let plaintext = match args.value {
        Some(value) => value.into_bytes(),
        None => read_input("the value to encrypt").await?,
    };
    let sealed = args.bound.call(client, &args.key).encrypt(&plaintext).await;
    let ciphertext =
        sealed.map_err(|error| Failure::from(error).while_doing("cannot encrypt the value"))?;
    let text = encode_text(&ciphertext);
    match format {
        Format::Table => print_line(text),
        Format::Json => {
            print_json(&json!({ "ciphertext": text, "version": version_of(&ciphertext) }))
        }
    }
}

/// Runs `decrypt`.
pub(crate) async fn decrypt(
    args: DecryptArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let ciphertext = read_ciphertext(args.ciphertext).await?;
    let opened = args.bound.call(client, "").reveal(&ciphertext).await;
    let Decrypted { plaintext, masked } =
        opened.map_err(|error| Failure::from(error).while_doing("cannot decrypt the value"))?;
    match format {
        Format::Table => {
            print_bytes(&plaintext)?;
            if masked {
                // Whoever closed standard error does not want to know.
                let mut err = std::io::stderr().lock();
                let _ = writeln!(
                    err,
                    "note: the value is masked; this identity may not see all of it"
                );
            }
            Ok(())
        }
        Format::Json => {
            let text = std::str::from_utf8(&plaintext).ok();
            print_json(&json!({
                "plaintext": text,
                "plaintext_base64": BASE64.encode(&plaintext),
                "masked": masked,
            }))
        }
    }
}

/// Runs `reencrypt`.
pub(crate) async fn reencrypt(
    args: ReencryptArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let ciphertext = read_ciphertext(args.ciphertext).await?;
    let renewed = args
        .bound
        .call(client, &args.key)
        .reencrypt(&ciphertext)
        .await;
    let renewed =
        renewed.map_err(|error| Failure::from(error).while_doing("cannot re-encrypt the value"))?;
    let text = encode_text(&renewed.ciphertext);
    match format {
        Format::Table => print_line(text),
        Format::Json => print_json(
            &json!({ "ciphertext": text, "version": renewed.version, "changed": renewed.changed }),
        ),
    }
}

fn version_of(ciphertext: &[u8]) -> Option<u32> {
    Ciphertext::parse(ciphertext)
        .ok()
        .map(|parsed| parsed.version())
}

/// The binary form of a ciphertext from an argument or standard input; a line end around it is no part of it.
async fn read_ciphertext(argument: Option<String>) -> Result<Vec<u8>, Failure> {
    let text = match argument {
        Some(text) => text.into_bytes(),
        None => read_input("the ciphertext").await?,
    };
    decode_text(String::from_utf8_lossy(&text).trim()).map_err(|error| {
        Failure::new(Exit::Invalid, "this is not a ciphertext in text form")
            .caused_by(&error)
            .help("give the whole text that `fieldkeep encrypt` printed: fk1: and what follows")
    })
}

/// Standard input: what is piped in, byte for byte, or one line that is typed.
async fn read_input(what: &'static str) -> Result<Vec<u8>, Failure> {
    let read = move || {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            eprintln!("type {what} and press Enter:");
            let mut line = String::new();
            stdin.read_line(&mut line)?;
            let length = line.trim_end_matches(['\n', '\r']).len();
            line.truncate(length);
            return Ok(line.into_bytes());
        }
        let mut bytes = Vec::new();
        stdin
            .lock()
            .take(MAX_INPUT_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let failed = |error: &std::io::Error| {
        Failure::new(Exit::Failed, "cannot read standard input").caused_by(error)
    };
    let bytes = match tokio::task::spawn_blocking(read).await {
        Ok(bytes) => bytes.map_err(|error| failed(&error))?,
        Err(error) => return Err(failed(&std::io::Error::other(error))),
    };
    if bytes.len() > MAX_INPUT_BYTES {
        return Err(
            Failure::new(Exit::Invalid, format_args!("{what} is too long"))
                .help("a value may have 65,536 bytes at most"),
        );
    }
    Ok(bytes)
}
