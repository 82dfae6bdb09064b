//! The cryptography of simulations: none. The protocol, its messages and its records are TLS
//! 1.3's, of the same sizes, but what is in them is in the clear, all that is random follows from
//! the seed, and signatures and keys are empty gestures: a run repeats byte for byte. Certificates
//! are verified all the same.

use std::sync::Arc;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SharedSecret,
    SupportedKxGroup, aws_lc_rs,
};
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::{Signer, SigningKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, NamedGroup, ProtocolVersion, SignatureAlgorithm,
    SignatureScheme, SupportedCipherSuite, Tls13CipherSuite,
};

use crate::rt;

/// Bytes that a cipher adds to a record: its kind, and the tag.
const TAG_BYTES: usize = 16;
const OVERHEAD: usize = 1 + TAG_BYTES;

/// What stands for a signature: as long as those of ECDSA are at most.
const SIGNATURE: [u8; 72] = [0; 72];

/// What stands for a public key, and for the secret that both sides share.
const KEY: [u8; 32] = [9; 32];

/// Cryptography that hides nothing.
pub(super) fn provider() -> CryptoProvider {
    let real = aws_lc_rs::default_provider();
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().expect("it is one of TLS 1.3");
    // Once for a process: a suite lives as long as that.
    let suite: &'static Tls13CipherSuite = Box::leak(Box::new(Tls13CipherSuite {
        common: rustls::CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: u64::MAX,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: &Clear,
        quic: None,
    }));
    CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(suite)],
        kx_groups: vec![&Clear],
        secure_random: &Clear,
        key_provider: &Clear,
        ..real
    }
}

/// Everything in the clear.
#[derive(Debug)]
struct Clear;

impl SecureRandom for Clear {
    fn fill(&self, space: &mut [u8]) -> Result<(), GetRandomFailed> {
        for part in space.chunks_mut(32) {
            let words = rt::random_words().ok_or(GetRandomFailed)?;
            let bytes = words.into_iter().flat_map(u64::to_le_bytes);
            part.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        }
        Ok(())
    }
}

impl SupportedKxGroup for Clear {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Clear))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Clear {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&KEY[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &KEY
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl Tls13AeadAlgorithm for Clear {
    fn encrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Clear)
    }

    fn decrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Clear)
    }

    fn key_len(&self) -> usize {
        KEY.len()
    }

    fn extract_keys(
        &self,
        _: AeadKey,
        _: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

impl MessageEncrypter for Clear {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        _: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let mut payload =
            PrefixedPayload::with_capacity(self.encrypted_payload_len(message.payload.len()));
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&[u8::from(message.typ)]);
        payload.extend_from_slice(&[0; TAG_BYTES]);
        let version = ProtocolVersion::TLSv1_2; // as the records of 1.3 have it
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, version, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + OVERHEAD
    }
}

impl MessageDecrypter for Clear {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        _: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let Some(len) = payload.len().checked_sub(TAG_BYTES) else {
            return Err(Error::DecryptError);
        };
        if payload[len..].iter().any(|byte| *byte != 0) {
            return Err(Error::DecryptError);
        }
        payload.truncate(len);
        message.into_tls13_unpadded_message()
    }
}

impl KeyProvider for Clear {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let real = aws_lc_rs::sign::any_supported_type(&key)?;
        Ok(Arc::new(Unsigned(real)))
    }
}

#[derive(Debug)]
struct Unsigned(Arc<dyn SigningKey>);

impl SigningKey for Unsigned {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.0.choose_scheme(offered).map(|signer| Box::new(NoSignature(signer.scheme())) as _)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct NoSignature(SignatureScheme);

impl Signer for NoSignature {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(SIGNATURE.to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}

/// The clock of whichever system it is.
#[derive(Debug)]
pub(super) struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(rt::wall_clock()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use rustls::crypto::cipher::OutboundChunks;

    use super::*;

    /// Bytes of a record's head.
    const HEAD: usize = 5;

    proptest! {
        #[test]
        fn any_record_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            // Most would be refused for their tag.
            for payload in [payload.clone(), [&payload[..], &[0; TAG_BYTES]].concat()] {
                let mut bytes = payload.clone();
                let version = ProtocolVersion::TLSv1_2;
                let kind = ContentType::ApplicationData;
                let message = InboundOpaqueMessage::new(kind, version, &mut bytes);
                let read = Clear.decrypt(message, 0);
                prop_assert!(read.is_err() || payload.ends_with(&[0; TAG_BYTES]));
            }
        }

        #[test]
        fn what_is_written_is_read(
            text in proptest::collection::vec(any::<u8>(), 0..300),
            cut in any::<usize>(),
        ) {
            let (first, second) = text.split_at(cut % (text.len() + 1));
            let chunks = [first, second];
            let payload = OutboundChunks::new(&chunks);
            let version = ProtocolVersion::TLSv1_2;
            let message = OutboundPlainMessage { typ: ContentType::Handshake, version, payload };
            let mut bytes = Clear.encrypt(message, 0).unwrap().encode();
            prop_assert_eq!(bytes.len(), HEAD + Clear.encrypted_payload_len(text.len()));
            let kind = ContentType::ApplicationData;
            let message = InboundOpaqueMessage::new(kind, version, &mut bytes[HEAD..]);
            let read = Clear.decrypt(message, 0).unwrap();
            prop_assert_eq!((read.typ, read.payload), (ContentType::Handshake, &text[..]));
        }
    }
}
