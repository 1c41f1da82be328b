//! OpenTelemetry's metrics, read where they lie.
//!
//! A push of a MiB could ask a decoder that builds everything it reads for a hundred times as much memory. Nothing is built here:
//! fields are passed one by one, and of each point only what is kept is copied.

use prost::encoding::{WireType, decode_key, decode_varint};

/// Most attributes of one point that are looked at.
const MOST_ATTRIBUTES: usize = 16;

/// The bytes are no such message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not OTLP metrics data")]
pub(super) struct Malformed;

/// How a value stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temporality {
    /// It replaces them.
    Gauge,
    /// It is added to them.
    Delta,
    /// It is their sum.
    Cumulative,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point<'a> {
    pub(super) name: &'a str,
    pub(super) attributes: Vec<(&'a str, String)>,
    pub(super) value: f64,
    pub(super) temporality: Temporality,
}

/// One field of a message.
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// 32 bits; none of the fields that are read here.
    Other,
}

/// The fields of one message, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let field = self.field();
            if field.is_err() {
                self.0 = &[];
            }
            field
        })
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let (tag, wire_type) = decode_key(&mut self.0).map_err(|_| Malformed)?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(decode_varint(&mut self.0).map_err(|_| Malformed)?),
            WireType::SixtyFourBit => {
                let bytes = self.take(8)?;
                Value::Fixed64(u64::from_le_bytes(bytes.try_into().map_err(|_| Malformed)?))
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0).map_err(|_| Malformed)?;
                Value::Bytes(self.take(usize::try_from(length).map_err(|_| Malformed)?)?)
            }
            WireType::ThirtyTwoBit => {
                self.take(4)?;
                Value::Other
            }
            // Groups are older than OTLP.
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
        };
        Ok((tag, value))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Calls `each` for every embedded message in field `tag`.
fn embedded<'a>(
    message: &'a [u8],
    tag: u32,
    mut each: impl FnMut(&'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for field in Fields(message) {
        if let (found, Value::Bytes(bytes)) = field?
            && found == tag
        {
            each(bytes)?;
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

/// Calls `each` for every number that the `MetricsData` in `bytes` has. Histograms and summaries are passed over: Kafka's clients
/// send none.
///
/// # Errors
/// [`Malformed`]; what was read up to then was passed on.
pub(super) fn read<'a>(bytes: &'a [u8], each: &mut dyn FnMut(Point<'a>)) -> Result<(), Malformed> {
    embedded(bytes, 1, |resource| embedded(resource, 2, |scope| embedded(scope, 2, |metric| read_metric(metric, each))))
}

fn read_metric<'a>(metric: &'a [u8], each: &mut dyn FnMut(Point<'a>)) -> Result<(), Malformed> {
    let (mut name, mut gauge, mut sum) = ("", None, None);
    for field in Fields(metric) {
        match field? {
            (1, Value::Bytes(bytes)) => name = text(bytes)?,
            (5, Value::Bytes(bytes)) => gauge = Some(bytes),
            (7, Value::Bytes(bytes)) => sum = Some(bytes),
            _ => {}
        }
    }
    if let Some(gauge) = gauge {
        embedded(gauge, 1, |point| read_point(name, Temporality::Gauge, point, each))?;
    }
    let Some(sum) = sum else { return Ok(()) };
    let mut temporality = Temporality::Cumulative;
    for field in Fields(sum) {
        if let (2, Value::Varint(1)) = field? {
            temporality = Temporality::Delta;
        }
    }
    embedded(sum, 1, |point| read_point(name, temporality, point, each))
}

fn read_point<'a>(
    name: &'a str,
    temporality: Temporality,
    point: &'a [u8],
    each: &mut dyn FnMut(Point<'a>),
) -> Result<(), Malformed> {
    let (mut value, mut attributes) = (None, Vec::new());
    for field in Fields(point) {
        match field? {
            (4, Value::Fixed64(bits)) => value = Some(f64::from_bits(bits)),
            (6, Value::Fixed64(bits)) => value = Some(bits as i64 as f64),
            (7, Value::Bytes(bytes)) if attributes.len() < MOST_ATTRIBUTES => attributes.extend(read_attribute(bytes)?),
            _ => {}
        }
    }
    if let Some(value) = value {
        each(Point { name, attributes, value, temporality });
    }
    Ok(())
}

/// `None` for a value that is no text and no number.
fn read_attribute(attribute: &[u8]) -> Result<Option<(&str, String)>, Malformed> {
    let (mut key, mut value) = ("", None);
    for field in Fields(attribute) {
        match field? {
            (1, Value::Bytes(bytes)) => key = text(bytes)?,
            (2, Value::Bytes(any)) => {
                for field in Fields(any) {
                    match field? {
                        (1, Value::Bytes(bytes)) => value = Some(text(bytes)?.to_owned()),
                        (2, Value::Varint(flag)) => value = Some((flag != 0).to_string()),
                        (3, Value::Varint(number)) => value = Some((number as i64).to_string()),
                        (4, Value::Fixed64(bits)) => value = Some(f64::from_bits(bits).to_string()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(value.map(|value| (key, value)))
}

#[cfg(test)]
pub(super) mod testing {
    use prost::encoding::{WireType, encode_key, encode_varint};

    fn field(tag: u32, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(tag, WireType::LengthDelimited, &mut out);
        encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    }

    /// A message with one number: a gauge, or a sum of differences.
    pub(crate) fn push(name: &str, attributes: &[(&str, &str)], value: f64, is_delta: bool) -> Vec<u8> {
        let mut point = Vec::new();
        encode_key(4, WireType::SixtyFourBit, &mut point);
        point.extend_from_slice(&value.to_le_bytes());
        for (key, value) in attributes {
            let any = field(2, &field(1, value.as_bytes()));
            point.extend(field(7, &[field(1, key.as_bytes()), any].concat()));
        }
        let mut numbers = field(1, &point);
        if is_delta {
            encode_key(2, WireType::Varint, &mut numbers);
            encode_varint(1, &mut numbers);
        }
        let metric = [field(1, name.as_bytes()), field(if is_delta { 7 } else { 5 }, &numbers)].concat();
        field(1, &field(2, &field(2, &metric)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_found_with_their_names_and_attributes() {
        let bytes = [
            testing::push("a.rate", &[("node_id", "1"), ("x", "y")], 1.5, false),
            testing::push("a.total", &[], 3.0, true),
        ]
        .concat();
        let mut found = Vec::new();
        read(&bytes, &mut |point| found.push(point)).unwrap();
        let attributes = vec![("node_id", "1".to_owned()), ("x", "y".to_owned())];
        let gauge = Point { name: "a.rate", attributes, value: 1.5, temporality: Temporality::Gauge };
        let delta = Point { name: "a.total", attributes: vec![], value: 3.0, temporality: Temporality::Delta };
        assert_eq!(found, [gauge, delta]);
        assert_eq!(read(&bytes[..bytes.len() - 3], &mut |_| {}), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, &mut |_| {});
        }
    }
}
