//! Kafka's primitive encodings, in both of their forms: fixed lengths, and (from the first flexible version) varints.

/// Key and value of a record, ready for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRecord {
    /// Never empty.
    pub key: Vec<u8>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
}

/// A name is longer than the format can carry (32767 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is longer than 32767 bytes")]
pub struct TooLong;

/// Why bytes are no record of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A kind that another group type owns: skip it, it is not damage.
    #[error("records of kind {0} are not known here")]
    UnknownKind(i16),
    /// A version of a known kind that is newer than this broker.
    #[error("version {0} of the value is not known here")]
    UnknownVersion(i16),
    /// The bytes end early, have an impossible length, or are no text where text must be.
    #[error("the record is damaged")]
    Malformed,
}

/// Writes big-endian fields.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn int8(&mut self, number: i8) {
        self.raw(&number.to_be_bytes());
    }

    pub(super) fn int16(&mut self, number: i16) {
        self.raw(&number.to_be_bytes());
    }

    pub(super) fn int32(&mut self, number: i32) {
        self.raw(&number.to_be_bytes());
    }

    pub(super) fn int64(&mut self, number: i64) {
        self.raw(&number.to_be_bytes());
    }

    pub(super) fn count(&mut self, count: usize) -> Result<(), TooLong> {
        self.int32(i32::try_from(count).map_err(|_| TooLong)?);
        Ok(())
    }

    pub(super) fn string(&mut self, text: &str) -> Result<(), TooLong> {
        self.int16(i16::try_from(text.len()).map_err(|_| TooLong)?);
        self.raw(text.as_bytes());
        Ok(())
    }

    pub(super) fn nullable_string(&mut self, text: Option<&str>) -> Result<(), TooLong> {
        match text {
            Some(text) => self.string(text),
            None => {
                self.int16(-1);
                Ok(())
            }
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.count(bytes.len())?;
        self.raw(bytes);
        Ok(())
    }

    pub(super) fn compact_bytes(&mut self, bytes: &[u8]) {
        // Lengths come from requests, which are far smaller than 4 GiB.
        self.varint((bytes.len() as u32).wrapping_add(1));
        self.raw(bytes);
    }

    pub(super) fn compact_string(&mut self, text: &str) -> Result<(), TooLong> {
        // Kafka's readers take no more, in this form either.
        i16::try_from(text.len()).map_err(|_| TooLong)?;
        self.compact_bytes(text.as_bytes());
        Ok(())
    }

    pub(super) fn compact_nullable_string(&mut self, text: Option<&str>) -> Result<(), TooLong> {
        match text {
            Some(text) => self.compact_string(text),
            None => {
                self.varint(0);
                Ok(())
            }
        }
    }

    pub(super) fn compact_count(&mut self, count: usize) {
        // As with lengths: counts come from requests.
        self.varint((count as u32).wrapping_add(1));
    }

    /// An array in the flexible form.
    pub(super) fn compact_list<T>(
        &mut self,
        mut items: impl ExactSizeIterator<Item = T>,
        mut put: impl FnMut(&mut Writer, T) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        self.compact_count(items.len());
        items.try_for_each(|item| put(self, item))
    }

    /// An array of numbers in the flexible form.
    pub(super) fn compact_int32s(&mut self, numbers: impl ExactSizeIterator<Item = i32>) {
        self.compact_count(numbers.len());
        numbers.for_each(|number| self.int32(number));
    }

    /// Says that a struct ends without tagged fields.
    pub(super) fn no_tags(&mut self) {
        self.varint(0);
    }

    /// Ends a struct with one tagged field.
    pub(super) fn one_tag(&mut self, tag: u32, field: Writer) {
        self.tags(vec![(tag, field)]);
    }

    /// Ends a struct with these tagged fields, which are in the order of their tags.
    pub(super) fn tags(&mut self, fields: Vec<(u32, Writer)>) {
        // A format has a handful.
        self.varint(fields.len() as u32);
        for (tag, field) in fields {
            self.varint(tag);
            self.varint(field.0.len() as u32);
            self.raw(&field.0);
        }
    }

    pub(super) fn varint(&mut self, mut number: u32) {
        while number > 0x7f {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

/// Reads what a [`Writer`] writes; every read is checked against what is left.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// Starts in the form with fixed lengths, in which keys are written.
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, flexible: false }
    }

    /// The value's version, which also decides the form of what follows: `flexible_since` is the first with varints.
    pub(super) fn version(&mut self, newest: i16, flexible_since: i16) -> Result<i16, RecordError> {
        let version = self.int16()?;
        if !(0..=newest).contains(&version) {
            return Err(RecordError::UnknownVersion(version));
        }
        self.flexible = version >= flexible_since;
        Ok(version)
    }

    /// Starts in the flexible form, inside a tagged field.
    pub(super) fn flexible(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, flexible: true }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordError::Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(RecordError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn int8(&mut self) -> Result<i8, RecordError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub(super) fn uuid(&mut self) -> Result<[u8; 16], RecordError> {
        self.array()
    }

    pub(super) fn int16(&mut self) -> Result<i16, RecordError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn int32(&mut self) -> Result<i32, RecordError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn int64(&mut self) -> Result<i64, RecordError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(super) fn varint(&mut self) -> Result<u32, RecordError> {
        let mut number = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            number |= bits.checked_shl(shift).filter(|moved| moved >> shift == bits).ok_or(RecordError::Malformed)?;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RecordError::Malformed)
    }

    /// `None` for null.
    fn length(
        &mut self,
        fixed: impl FnOnce(&mut Self) -> Result<i32, RecordError>,
    ) -> Result<Option<usize>, RecordError> {
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1).map(|length| length as usize));
        }
        match fixed(self)? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| RecordError::Malformed),
        }
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(|reader| reader.int16().map(i32::from))? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| RecordError::Malformed)?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn string(&mut self) -> Result<String, RecordError> {
        self.nullable_string()?.ok_or(RecordError::Malformed)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.length(Self::int32)?.ok_or(RecordError::Malformed)?;
        self.take(length)
    }

    pub(super) fn count(&mut self) -> Result<usize, RecordError> {
        self.nullable_count()?.ok_or(RecordError::Malformed)
    }

    /// `None` for a null array.
    pub(super) fn nullable_count(&mut self) -> Result<Option<usize>, RecordError> {
        self.length(Self::int32)
    }

    /// An array. Its count is a claim: nothing is set aside for it, and a short buffer ends it.
    pub(super) fn list<T, L: FromIterator<T>>(
        &mut self,
        mut take: impl FnMut(&mut Self) -> Result<T, RecordError>,
    ) -> Result<L, RecordError> {
        (0..self.count()?).map(|_| take(self)).collect()
    }

    /// Passes over the tagged fields that end a struct of a flexible version.
    pub(super) fn end(&mut self) -> Result<(), RecordError> {
        self.tagged_fields(|_, _| Ok(()))
    }

    /// The tagged fields that end a struct of a flexible version; nothing in other versions.
    pub(super) fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &'a [u8]) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            field(tag, self.take(size)?)?;
        }
        Ok(())
    }
}
