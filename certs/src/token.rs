//! Join tokens: how a new host proves that an operator invited it.
//!
//! A token is `id.secret.pin`. The pin tells the host which authority to trust before it says
//! anything; the id tells the controller which invitation is meant; the secret proves the
//! invitation and never travels. The secret is the seed of an Ed25519 key: the controller stores
//! the public half ([`TokenCheck`]), and the proof is a signature over the id, the name the host
//! wants and its certificate request. A relay that carries the proof cannot use it for another key
//! or another name, and a stolen table of invitations lets nobody join, because unlike a hash the
//! public half is not enough to make a proof.
//!
//! Not here: whether a token is expired, used up or meant for another site. The proof can be
//! repeated by whoever saw it, but only for the same request, so only for the same node key.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};

use crate::authority::Pin;
use crate::key::{self, Key};
use crate::order::envelope;
use crate::random;

/// Begins everything a token's key signs.
const DOMAIN: &str = "barid-join-v1";

/// Makes the key derived from a secret differ from any other use of the same bytes.
const KEY_CONTEXT: &str = "barid join token v1 seed of the proof key";

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz234567";

/// Lower-case base32 without padding: no characters that a shell, a URL or a reader mistakes.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str(ALPHABET);
    specification.encoding().expect("32 distinct symbols are an encoding")
});

/// Names an invitation. Public.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 8]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<TokenId, TokenError> {
        Ok(TokenId(part("id", text)?))
    }
}

/// An invitation to join, as the operator hands it out. `Display` shows all of it, secret
/// included; `Debug` does not.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    secret: [u8; 16],
    pin: Pin,
}

impl Token {
    /// A new invitation to the mesh whose authority has this pin.
    pub fn new(pin: Pin) -> Token {
        Token { id: TokenId(random()), secret: random(), pin }
    }

    /// The public name of this invitation.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// The authority to trust.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// What the controller keeps instead of the token.
    pub fn check(&self) -> TokenCheck {
        TokenCheck(self.key().public())
    }

    /// The proof that whoever sends this request under this name holds the token.
    pub fn prove(&self, name: &str, csr: &[u8]) -> [u8; 64] {
        self.key().sign(&statement(self.id, name, csr))
    }

    fn key(&self) -> Key {
        Key::from_seed(&blake3::derive_key(KEY_CONTEXT, &self.secret))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = BASE32.encode(&self.secret);
        write!(f, "{}.{secret}.{}", self.id, BASE32.encode(&self.pin.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret not shown, {:?})", self.id, self.pin)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// White space around the token is ignored, nothing else is.
    fn from_str(text: &str) -> Result<Token, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let &[id, secret, pin] = parts.as_slice() else {
            return Err(TokenError::Parts { found: parts.len() });
        };
        Ok(Token { id: id.parse()?, secret: part("secret", secret)?, pin: Pin(part("pin", pin)?) })
    }
}

/// What the controller keeps of a token: enough to check a proof, not enough to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenCheck(pub [u8; 32]);

impl TokenCheck {
    /// Whether the holder of token `id` made this proof for this name and request.
    pub fn verify(&self, id: TokenId, name: &str, csr: &[u8], proof: &[u8]) -> bool {
        key::verify(&self.0, &statement(id, name, csr), proof)
    }
}

/// A text that is not a token. The message never repeats any of it, because it may be secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text does not consist of three parts.
    #[error("a token has 3 parts with a dot between them, id.secret.pin, and this has {found}")]
    Parts {
        /// How many it has.
        found: usize,
    },
    /// A part was cut or has something added.
    #[error("the {part} of a token has {expected} characters, and this has {found}")]
    Length {
        /// Which part.
        part: &'static str,
        /// How long it should be.
        expected: usize,
        /// How long it is.
        found: usize,
    },
    /// A part has a character that no token has.
    #[error("character {position} of the token's {part} is not one of a-z 2-7, or is mistyped")]
    Character {
        /// Which part.
        part: &'static str,
        /// Which character, counting from 1.
        position: usize,
    },
}

fn part<const N: usize>(part: &'static str, text: &str) -> Result<[u8; N], TokenError> {
    let expected = BASE32.encode_len(N);
    let found = text.chars().count();
    if found != expected {
        return Err(TokenError::Length { part, expected, found });
    }
    let foreign = |c: char| !ALPHABET.contains(c);
    if let Some(before) = text.chars().position(foreign) {
        return Err(TokenError::Character { part, position: before + 1 });
    }
    // What is left to be wrong are the last character's padding bits.
    let wrong_end = TokenError::Character { part, position: expected };
    let bytes = BASE32.decode(text.as_bytes()).map_err(|_| wrong_end)?;
    Ok(bytes.try_into().expect("this many characters decode to N bytes"))
}

fn statement(id: TokenId, name: &str, csr: &[u8]) -> Vec<u8> {
    envelope(DOMAIN, &[&id.0, name.as_bytes(), blake3::hash(csr).as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { id: TokenId([1; 8]), secret: [0x5a; 16], pin: Pin([3; 32]) }
    }

    #[test]
    fn round_trip() {
        let token = Token::new(Pin([7; 32]));
        let read: Token = format!("\n {token}\t\n").parse().expect("it was just written");
        assert_eq!(read.to_string(), token.to_string());
        assert_eq!(read.check(), token.check());
        assert_eq!((read.id(), read.pin()), (token.id(), Pin([7; 32])));
        assert_eq!(token.id().to_string().parse(), Ok(token.id()));
        assert_eq!(token.to_string().len(), 13 + 1 + 26 + 1 + 52);
    }

    #[test]
    fn the_proof_is_bound_to_token_name_and_request() {
        let (token, other) = (token(), Token::new(Pin([3; 32])));
        let proof = token.prove("web1", b"csr");
        let check = token.check();
        assert!(check.verify(token.id(), "web1", b"csr", &proof));
        assert!(!check.verify(token.id(), "web2", b"csr", &proof));
        assert!(!check.verify(token.id(), "web1", b"csr2", &proof));
        assert!(!check.verify(other.id(), "web1", b"csr", &proof));
        assert!(!other.check().verify(token.id(), "web1", b"csr", &proof));
        assert!(!check.verify(token.id(), "web1", b"csr", &proof[..63]));
        assert!(!TokenCheck([0; 32]).verify(token.id(), "web1", b"csr", &proof));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let text = token().to_string();
        let secret = text.split('.').nth(1).expect("a token has three parts");
        let shown = format!("{:?}", token());
        assert!(!shown.contains(secret) && !shown.contains("90, 90"), "{shown}");
    }

    #[test]
    fn errors_name_the_part() {
        let text = token().to_string();
        let [id, secret, pin] =
            text.split('.').collect::<Vec<_>>().try_into().expect("a token has three parts");
        let check = |text: String, expected: &str| {
            let error = text.parse::<Token>().expect_err("it is refused").to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(secret));
        };
        check(String::new(), "has 1");
        check(format!("{id}.{secret}"), "has 2");
        check(format!("{text}.x"), "has 4");
        check(format!("{id}.{}.{pin}", &secret[1..]), "secret of a token has 26 characters");
        check(format!("{id}..{pin}"), "this has 0");
        check(format!("{id}.{secret}.{pin}a"), "pin of a token has 52 characters");
        check(format!("\"{text}\""), "id of a token has 13 characters");
        check(format!("{}.{secret}.{pin}", id.to_uppercase()), "character 1 of the token's id");
        check(format!("{id}.{secret}.–{}", &pin[1..]), "character 1 of the token's pin");
        // The last character carries padding bits, which must be zero: one spelling per token.
        check(format!("{id}.{secret}.{}b", &pin[..51]), "character 52 of the token's pin");
    }
}
