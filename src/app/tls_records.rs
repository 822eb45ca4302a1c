//! Floor 5. Where records of TLS begin and end in what has come over a line.

/// Follows the records (RFC 8446, 5.1): a byte of type, two of version, two of the length, and so many bytes. TLS gives
/// nothing of a record to HTTP before it is whole, and may hold a part of the next one whenever it has given something.
#[derive(Debug, Default)]
pub(super) struct TlsRecords {
    /// Bytes of the head that have come.
    head: usize,
    /// The length that the head says, as far as it has come; then the bytes that are to come.
    left: usize,
}

const HEAD_BYTES: usize = 5;

impl TlsRecords {
    /// Follows what has come.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.head < HEAD_BYTES {
                self.head += 1;
                if self.head > 3 {
                    self.left = self.left << 8 | usize::from(*first);
                }
                bytes = rest;
            } else {
                let (_, behind) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= bytes.len() - behind.len();
                bytes = behind;
            }
            if self.head == HEAD_BYTES && self.left == 0 {
                self.head = 0;
            }
        }
    }

    /// Whether a record has begun and is not whole.
    pub(super) fn is_within(&self) -> bool {
        self.head > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_with_its_last_byte_however_it_comes() {
        let record = |length: usize| {
            let [.., high, low] = length.to_be_bytes();
            [vec![23, 3, 3, high, low], vec![7; length]].concat()
        };
        let lengths = [0, 1, 300, 16_384 + 256, 5];
        let line: Vec<u8> = lengths.iter().flat_map(|length| record(*length)).collect();
        let ends: Vec<usize> = lengths
            .iter()
            .scan(0, |end, length| {
                *end += HEAD_BYTES + length;
                Some(*end)
            })
            .collect();
        for piece in [1, 2, 4, 7, 4096, line.len()] {
            let (mut records, mut come) = (TlsRecords::default(), 0);
            assert!(!records.is_within());
            for some in line.chunks(piece) {
                records.follow(some);
                come += some.len();
                assert_eq!(records.is_within(), !ends.contains(&come), "{come} of pieces of {piece}");
            }
        }
    }
}
