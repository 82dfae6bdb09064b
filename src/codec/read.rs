//! What readers have in common.

/// What a deserializer gives to whoever asks, by its method `$read(visitor, as_bytes)`: any value,
/// text as bytes to who asks for bytes.
macro_rules! any_or_bytes {
    ($self:ident => $($read:tt)+) => {
        fn deserialize_any<V: Visitor<'de>>($self, visitor: V) -> Result<V::Value> {
            $($read)+(visitor, false)
        }

        #[inline(always)]
        fn deserialize_bytes<V: Visitor<'de>>($self, visitor: V) -> Result<V::Value> {
            $($read)+(visitor, true)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string byte_buf option
            unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
            ignored_any
        }
    };
}

pub(super) use any_or_bytes;
