//! placeholder until merged
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Value { Nil, Bool(bool), Number(f64), Text(Box<[u8]>) }
