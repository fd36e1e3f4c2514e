//! The stack machine of a pickle, for the instructions a state dict uses.
//!
//! Values live in one list and refer to each other by index, so that a value that is used again is
//! never copied, and one that holds another needs no recursion.

use super::PytorchError;
use std::collections::BTreeMap;

/// A value's index.
pub(super) type Id = usize;

/// The longest text that is kept, in bytes: names are shorter.
const LONGEST: usize = 512;
/// More instructions than the state dict of any model: a tensor takes about forty.
const MOST_INSTRUCTIONS: usize = 1 << 22;

/// What a pickle builds.
#[derive(Debug)]
pub(super) enum Value {
    Nothing,
    Whole(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Keys and values in the order they were set.
    Dict(Vec<(Id, Id)>),
    /// A module and a name in it.
    Global(Id, Id),
    /// Numbers somewhere in the file: torch's class for them, and their key.
    Storage(Id, Id),
    /// The arguments of a function that makes a tensor.
    Tensor(Id),
}

/// Numbers somewhere in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    /// Torch's class, for instance `HalfStorage`.
    pub(super) class: &'a str,
}

impl Storage<'_> {
    /// Bytes of a number; 1 where the class is not known.
    pub(super) fn number_size(&self) -> usize {
        match self.class {
            "DoubleStorage" | "LongStorage" => 8,
            "FloatStorage" | "IntStorage" => 4,
            "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
            _ => 1,
        }
    }
}

/// All values of a pickle.
#[derive(Debug, Default)]
pub(super) struct Heap(Vec<Value>);

impl Heap {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.0[id]
    }

    /// A text that is short enough to be a name.
    pub(super) fn name(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) if text.len() <= LONGEST => Some(text),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn storage(&self, id: Id) -> Option<Storage<'_>> {
        let Value::Storage(class, key) = self.get(id) else {
            return None;
        };
        Some(Storage {
            key: self.name(*key)?,
            class: self.name(*class)?,
        })
    }

    pub(super) fn storages(&self) -> impl Iterator<Item = Storage<'_>> {
        (0..self.0.len()).filter_map(|id| self.storage(id))
    }

    fn add(&mut self, value: Value) -> Id {
        self.0.push(value);
        self.0.len() - 1
    }
}

/// Reads one pickle; returns its values, which of them it stands for, and how many bytes it took.
pub(super) fn read(bytes: &[u8]) -> Result<(Heap, Id, usize), PytorchError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        heap: Heap::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    for _ in 0..MOST_INSTRUCTIONS {
        if let Some(root) = machine.step()? {
            return Ok((machine.heap, root, machine.at));
        }
    }
    Err(machine.error("an end, after four million instructions"))
}

/// A text; one that is too long to be a name is kept as nothing.
fn text(bytes: &[u8]) -> Value {
    match bytes.len() {
        ..=LONGEST => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        _ => Value::Nothing,
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    heap: Heap,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
}

impl Machine<'_> {
    /// One instruction; the value of the pickle when it ends.
    fn step(&mut self) -> Result<Option<Id>, PytorchError> {
        let start = self.at;
        let code = self.take(1)?[0];
        match code {
            b'.' => return self.pop().map(Some),
            0x80 => drop(self.take(1)?),
            // A frame tells a stream how much to read ahead.
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::Nothing),
            0x88 => self.push(Value::Whole(1)),
            0x89 => self.push(Value::Whole(0)),
            b'K' => self.unsigned(1)?,
            b'M' => self.unsigned(2)?,
            b'J' => self.signed(4)?,
            0x8a => {
                let size = self.length(1)?;
                self.signed(size)?;
            }
            // A number that no tensor's description holds: kept as nothing.
            b'G' => {
                self.take(8)?;
                self.push(Value::Nothing);
            }
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b'T' => self.text(4)?,
            b'U' => self.text(1)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let (module, name) = (self.heap.add(module), self.heap.add(name));
                self.push(Value::Global(module, name));
            }
            0x93 => self.stack_global()?,
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let items = self.pop_many(count)?;
                self.push(Value::Tuple(items));
            }
            b'a' | b'e' => {
                let items = if code == b'a' {
                    self.pop_many(1)?
                } else {
                    self.pop_to_mark()?
                };
                self.append(items)?;
            }
            b's' | b'u' => {
                let items = if code == b's' {
                    self.pop_many(2)?
                } else {
                    self.pop_to_mark()?
                };
                self.set_items(&items)?;
            }
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => {
                let index = self.memo.len() as u64;
                self.memo.insert(index, self.top()?);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'0' => drop(self.pop()?),
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            // The state of an ordered dict: attributes that torch leaves there (`_metadata`).
            b'b' => drop(self.pop()?),
            code => return Err(PytorchError::Instruction { code, at: start }),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], PytorchError> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(PytorchError::CutOff { at: self.at })?;
        self.at += count;
        Ok(taken)
    }

    /// A little-endian length of `size` bytes.
    fn length(&mut self, size: usize) -> Result<usize, PytorchError> {
        let at = self.at;
        let mut eight = [0; 8];
        eight[..size].copy_from_slice(self.take(size)?);
        usize::try_from(u64::from_le_bytes(eight)).map_err(|_| PytorchError::CutOff { at })
    }

    fn unsigned(&mut self, size: usize) -> Result<(), PytorchError> {
        let number = self.length(size)?;
        self.push(Value::Whole(number as i64));
        Ok(())
    }

    /// A number in two's complement.
    fn signed(&mut self, size: usize) -> Result<(), PytorchError> {
        let at = self.at;
        let digits = self.take(size)?;
        let fill = match digits.last() {
            Some(last) if last & 0x80 != 0 => 0xff,
            _ => 0,
        };
        let mut eight = [fill; 8];
        let kept = size.min(eight.len());
        eight[..kept].copy_from_slice(&digits[..kept]);
        if digits[kept..].iter().any(|digit| *digit != fill) {
            let expected = "a number of at most eight bytes";
            return Err(PytorchError::Value { at, expected });
        }
        self.push(Value::Whole(i64::from_le_bytes(eight)));
        Ok(())
    }

    fn text(&mut self, length_size: usize) -> Result<(), PytorchError> {
        let length = self.length(length_size)?;
        let text = text(self.take(length)?);
        self.push(text);
        Ok(())
    }

    fn line(&mut self) -> Result<Value, PytorchError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or(PytorchError::CutOff { at: self.at })?;
        let line = text(&rest[..end]);
        self.at += end + 1;
        Ok(line)
    }

    fn push(&mut self, value: Value) {
        let id = self.heap.add(value);
        self.stack.push(id);
    }

    fn top(&self) -> Result<Id, PytorchError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(top) if self.stack.len() > floor => Ok(*top),
            _ => Err(self.error("a value")),
        }
    }

    fn pop(&mut self) -> Result<Id, PytorchError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, PytorchError> {
        let mut items = (0..count)
            .map(|_| self.pop())
            .collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PytorchError> {
        let mark = self.marks.pop().ok_or_else(|| self.error("a mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), PytorchError> {
        let list = self.top()?;
        match &mut self.heap.0[list] {
            Value::List(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err(self.error("a list")),
        }
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), PytorchError> {
        let dict = self.top()?;
        match &mut self.heap.0[dict] {
            Value::Dict(dict) if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err(self.error("a dict")),
        }
    }

    fn remember(&mut self, size: usize) -> Result<(), PytorchError> {
        let index = self.length(size)? as u64;
        self.memo.insert(index, self.top()?);
        Ok(())
    }

    fn recall(&mut self, size: usize) -> Result<(), PytorchError> {
        let index = self.length(size)? as u64;
        let id = self.memo.get(&index).copied();
        self.stack
            .push(id.ok_or_else(|| self.error("a value remembered before"))?);
        Ok(())
    }

    fn stack_global(&mut self) -> Result<(), PytorchError> {
        let names = self.pop_many(2)?;
        self.push(Value::Global(names[0], names[1]));
        Ok(())
    }

    /// `('storage', class, key, device, length)`.
    fn persistent(&mut self) -> Result<(), PytorchError> {
        let id = self.pop()?;
        let storage = match self.heap.tuple(id) {
            Some(&[_, class, key, ..]) => match self.heap.get(class) {
                Value::Global(_, class) => Some(Value::Storage(*class, key)),
                _ => None,
            },
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.error("a storage"))?;
        self.push(storage);
        Ok(())
    }

    /// What a call of one of torch's functions would give, for those that make tensors and dicts.
    fn reduce(&mut self) -> Result<(), PytorchError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(module, name) = *self.heap.get(function) else {
            return Err(self.error("a function"));
        };
        let (module, name) = (self.heap.name(module), self.heap.name(name));
        let (module, name) = (module.unwrap_or("?"), name.unwrap_or("?"));
        match (module, name) {
            ("collections", "OrderedDict") => self.push(Value::Dict(Vec::new())),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
                self.push(Value::Tensor(arguments));
            }
            // A parameter is its tensor.
            ("torch._utils", "_rebuild_parameter") => {
                let tensor = self.heap.tuple(arguments).and_then(<[_]>::first).copied();
                self.stack
                    .push(tensor.ok_or_else(|| self.error("a tensor"))?);
            }
            _ => {
                return Err(PytorchError::Function {
                    function: format!("{module}.{name}"),
                });
            }
        }
        Ok(())
    }

    fn error(&self, expected: &'static str) -> PytorchError {
        PytorchError::Value {
            at: self.at,
            expected,
        }
    }
}
