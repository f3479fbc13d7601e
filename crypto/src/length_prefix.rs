//! `lp(x)` of the format: the length of `x` as four big-endian bytes, then `x`.

/// The four length bytes of `lp(x)` for an `x` of `len` bytes.
///
/// Everything that is length-prefixed is bounded far below 4 GiB where it is parsed. The saturation only keeps this
/// function total.
pub(crate) fn length_bytes(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

/// Appends `lp(x)` to `out`.
pub(crate) fn push(out: &mut Vec<u8>, x: &[u8]) {
    out.extend_from_slice(&length_bytes(x.len()));
    out.extend_from_slice(x);
}

/// Takes `lp(x)` off the front of `input`: `x` and what follows, or `None` where `input` ends too early.
pub(crate) fn take(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = input.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}
