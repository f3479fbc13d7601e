//! An encoded record, read where it lies: no allocation, no copy.
//!
//! This is what `prost` reads of the same bytes, without the message that it makes. It is for code that looks at every record
//! of a trail, to index it or to find the few that somebody asked for.

use prost::encoding::{WireType, decode_varint};

/// The bytes are no `fieldkeep.v1.AuditRecord`: `prost` would not decode them either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the bytes are no audit record: they were written by another version, or not by Fieldkeep, or damaged"
)]
pub struct NoRecord;

/// An encoded `fieldkeep.v1.AuditRecord`, borrowed. The fields are those of the message, and what is not in the record is
/// zero or empty. Its changes and intended keys are checked, but not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// When the call ended, microseconds since the Unix epoch.
    pub time_us: u64,
    /// The call's id.
    pub request_id: &'a [u8],
    /// The identity, `tenants/{tenant}/identities/{name}`; empty if the caller could not be named.
    pub principal: &'a str,
    /// The method of authentication.
    pub authentication: &'a str,
    /// The caller's address and port.
    pub address: &'a str,
    /// The RPC.
    pub rpc: &'a str,
    /// The action that was authorized.
    pub action: &'a str,
    /// The `fieldkeep.v1.Decision`.
    pub decision: i32,
    /// The rule that decided.
    pub rule: &'a str,
    /// The `google.rpc.Code` of the reply.
    pub code: i32,
    /// The reason of a refusal or failure.
    pub reason: &'a str,
    /// The duration, microseconds.
    pub duration_us: u64,
    /// The keyed hash of the context.
    pub context_hash: &'a [u8],
    /// The items that succeeded.
    pub items_ok: u32,
    /// The items that failed.
    pub items_failed: u32,
    /// The store's revision after a management operation.
    pub store_revision: u64,
    /// Which part of the call's record this is.
    pub part: u32,
    /// How many parts the call's record has.
    pub parts: u32,
    /// What was granted, made or issued.
    pub detail: &'a str,
    /// What proved who the caller is.
    pub credential: &'a str,
    /// The `fieldkeep.v1.Phase`.
    pub phase: i32,
    /// The id of the store's operation.
    pub operation_id: &'a [u8],
    /// How many refused calls it stands for.
    pub summarised: u64,
    /// The record from its first resource to the end of the last.
    pub(crate) resources: &'a [u8],
}

/// An encoded `fieldkeep.v1.AuditResource`, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceView<'a> {
    /// The resource's name.
    pub name: &'a str,
    /// The key version; 0 if none.
    pub version: u32,
    /// The field; empty if none.
    pub field: &'a str,
    /// The items of a batch that named it.
    pub items: u32,
    /// The keyed hashes of its items; [`crate::items`] takes them apart.
    pub item_hashes: &'a [u8],
}

/// The tag of `AuditRecord.resources`.
const RESOURCES: u32 = 13;
/// How deeply `prost` lets messages and groups lie within one another.
const DEPTH: u32 = 100;

impl<'a> RecordView<'a> {
    /// Reads `record`. It takes the bytes that `prost` decodes, and no others.
    ///
    /// # Errors
    /// [`NoRecord`].
    pub fn parse(record: &'a [u8]) -> Result<RecordView<'a>, NoRecord> {
        let mut view = RecordView::default();
        let mut rest = record;
        // Where the resources begin and end, counted from the end of the record.
        let mut resources: Option<(usize, usize)> = None;
        while !rest.is_empty() {
            let before = rest.len();
            let (tag, wire) = key(&mut rest)?;
            let from = &mut rest;
            match tag {
                1 => view.time_us = number(wire, from)?,
                2 => view.request_id = bytes(wire, from)?,
                3 => view.principal = text(wire, from)?,
                4 => view.authentication = text(wire, from)?,
                5 => view.address = text(wire, from)?,
                6 => view.rpc = text(wire, from)?,
                7 => view.action = text(wire, from)?,
                8 => view.decision = number(wire, from)? as i32,
                9 => view.rule = text(wire, from)?,
                10 => view.code = number(wire, from)? as i32,
                11 => view.reason = text(wire, from)?,
                12 => view.duration_us = number(wire, from)?,
                RESOURCES => {
                    ResourceView::parse(bytes(wire, from)?)?;
                    let start = resources.map_or(before, |(start, _)| start);
                    resources = Some((start, rest.len()));
                }
                15 => view.context_hash = bytes(wire, from)?,
                16 => view.items_ok = number(wire, from)? as u32,
                17 => view.items_failed = number(wire, from)? as u32,
                18 => check_change(bytes(wire, from)?)?,
                19 => view.store_revision = number(wire, from)?,
                20 => view.part = number(wire, from)? as u32,
                21 => view.parts = number(wire, from)? as u32,
                22 => view.detail = text(wire, from)?,
                23 => view.credential = text(wire, from)?,
                24 => view.phase = number(wire, from)? as i32,
                25 => view.operation_id = bytes(wire, from)?,
                26 => drop(bytes(wire, from)?),
                27 => view.summarised = number(wire, from)?,
                _ => skip(wire, tag, from, DEPTH)?,
            }
        }
        if let Some((start, end)) = resources {
            let (start, end) = (record.len() - start, record.len() - end);
            view.resources = record.get(start..end).ok_or(NoRecord)?;
        }
        Ok(view)
    }

    /// What the call used, in the order of the record.
    pub fn resources(&self) -> impl Iterator<Item = ResourceView<'a>> + Clone + use<'a> {
        let mut rest = self.resources;
        // All of it was read once by `parse`, so that nothing here can fail.
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let (tag, wire) = key(&mut rest).ok()?;
                if tag == RESOURCES {
                    return ResourceView::parse(bytes(wire, &mut rest).ok()?).ok();
                }
                skip(wire, tag, &mut rest, DEPTH).ok()?;
            }
            None
        })
    }
}

impl<'a> ResourceView<'a> {
    fn parse(mut rest: &'a [u8]) -> Result<ResourceView<'a>, NoRecord> {
        let mut view = ResourceView::default();
        while !rest.is_empty() {
            let (tag, wire) = key(&mut rest)?;
            match tag {
                1 => view.name = text(wire, &mut rest)?,
                2 => view.version = number(wire, &mut rest)? as u32,
                3 => view.field = text(wire, &mut rest)?,
                4 => view.items = number(wire, &mut rest)? as u32,
                5 => view.item_hashes = bytes(wire, &mut rest)?,
                _ => skip(wire, tag, &mut rest, DEPTH - 1)?,
            }
        }
        Ok(view)
    }
}

/// Checks an encoded `fieldkeep.v1.AuditChange`.
fn check_change(mut rest: &[u8]) -> Result<(), NoRecord> {
    while !rest.is_empty() {
        let (tag, wire) = key(&mut rest)?;
        match tag {
            1 | 3 => bytes(wire, &mut rest).map(|_| ())?,
            2 => number(wire, &mut rest).map(|_| ())?,
            _ => skip(wire, tag, &mut rest, DEPTH - 1)?,
        }
    }
    Ok(())
}

/// What a field begins with: its tag, from 1 on, and how its value is written.
#[inline]
fn key(rest: &mut &[u8]) -> Result<(u32, WireType), NoRecord> {
    let key = u32::try_from(varint(rest)?).map_err(|_| NoRecord)?;
    let wire = WireType::try_from(u64::from(key & 7)).map_err(|_| NoRecord)?;
    match key >> 3 {
        0 => Err(NoRecord),
        tag => Ok((tag, wire)),
    }
}

/// Most numbers of a record have one byte: keys and lengths.
#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, NoRecord> {
    match rest.split_first() {
        Some((byte, left)) if *byte < 0x80 => {
            *rest = left;
            Ok((*byte).into())
        }
        _ => decode_varint(rest).map_err(|_| NoRecord),
    }
}

/// A number. As in `prost`, one of fewer bits is what its lowest bits say.
#[inline]
fn number(wire: WireType, rest: &mut &[u8]) -> Result<u64, NoRecord> {
    match wire {
        WireType::Varint => varint(rest),
        _ => Err(NoRecord),
    }
}

#[inline]
fn bytes<'a>(wire: WireType, rest: &mut &'a [u8]) -> Result<&'a [u8], NoRecord> {
    if wire != WireType::LengthDelimited {
        return Err(NoRecord);
    }
    let length = varint(rest)?;
    take(length, rest)
}

#[inline]
fn text<'a>(wire: WireType, rest: &mut &'a [u8]) -> Result<&'a str, NoRecord> {
    str::from_utf8(bytes(wire, rest)?).map_err(|_| NoRecord)
}

#[inline]
fn take<'a>(length: u64, rest: &mut &'a [u8]) -> Result<&'a [u8], NoRecord> {
    let length = usize::try_from(length).map_err(|_| NoRecord)?;
    let (taken, left) = rest.split_at_checked(length).ok_or(NoRecord)?;
    *rest = left;
    Ok(taken)
}

/// Passes over a field that this version does not know. `depth` is how many groups may still lie within one another.
fn skip(wire: WireType, tag: u32, rest: &mut &[u8], depth: u32) -> Result<(), NoRecord> {
    let inner = depth.checked_sub(1).ok_or(NoRecord)?;
    match wire {
        WireType::Varint => number(wire, rest).map(|_| ()),
        WireType::SixtyFourBit => take(8, rest).map(|_| ()),
        WireType::LengthDelimited => bytes(wire, rest).map(|_| ()),
        WireType::ThirtyTwoBit => take(4, rest).map(|_| ()),
        WireType::StartGroup => loop {
            match key(rest)? {
                (end, WireType::EndGroup) if end == tag => break Ok(()),
                (_, WireType::EndGroup) => break Err(NoRecord),
                (tag, wire) => skip(wire, tag, rest, inner)?,
            }
        },
        WireType::EndGroup => Err(NoRecord),
    }
}

#[cfg(test)]
mod tests;
