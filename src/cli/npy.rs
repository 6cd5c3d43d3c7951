//! Arrays as NumPy saves them (`.npy`, format versions 1 to 3).

use acb_fuse::engine::Array;
use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

/// The array in a file of this content; else what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Array, String> {
    let (header, data) = split(bytes).ok_or("it is not a .npy file")?;
    let kind = value_of(header, "descr").ok_or("its header names no type")?;
    let kind = kind.trim_matches(|c| matches!(c, '\'' | '"'));
    let shape = shape_of(header).ok_or("its header names no shape")?;
    let is_fortran = value_of(header, "fortran_order").is_some_and(|order| order == "True");
    let floats = |values| shaped(values, &shape, is_fortran).map(Array::Float);
    let integers = |values| shaped(values, &shape, is_fortran).map(Array::Int);
    match kind {
        "<f2" => floats(numbers(data, |bytes| f16::from_le_bytes(bytes).to_f64())),
        "<f4" => floats(numbers(data, |bytes| f64::from(f32::from_le_bytes(bytes)))),
        "<f8" => floats(numbers(data, f64::from_le_bytes)),
        "|b1" => integers(numbers(data, |[byte]| i64::from(byte != 0))),
        "|i1" => integers(numbers(data, |bytes| i64::from(i8::from_le_bytes(bytes)))),
        "<i2" => integers(numbers(data, |bytes| i64::from(i16::from_le_bytes(bytes)))),
        "<i4" => integers(numbers(data, |bytes| i64::from(i32::from_le_bytes(bytes)))),
        "<i8" => integers(numbers(data, i64::from_le_bytes)),
        "|u1" => integers(numbers(data, |[byte]| i64::from(byte))),
        "<u2" => integers(numbers(data, |bytes| i64::from(u16::from_le_bytes(bytes)))),
        "<u4" => integers(numbers(data, |bytes| i64::from(u32::from_le_bytes(bytes)))),
        _ => Err(format!("its type `{kind}` is not one that can be fed")),
    }
}

/// The header, a Python dictionary in words, and what follows it.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&version, rest) = bytes.strip_prefix(b"\x93NUMPY")?.split_first()?;
    let rest = rest.get(1..)?;
    let (length, rest) = match version {
        1 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        _ => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// The simple value of a key.
fn value_of<'h>(header: &'h str, key: &str) -> Option<&'h str> {
    let (_, behind) = header.split_once(&format!("'{key}':"))?;
    behind.split([',', '}']).next().map(str::trim)
}

fn shape_of(header: &str) -> Option<Vec<usize>> {
    let (_, behind) = header.split_once("'shape':")?;
    let (sizes, _) = behind.trim_start().strip_prefix('(')?.split_once(')')?;
    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes.map(|size| size.parse().ok()).collect()
}

fn numbers<T, const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| decode(chunk)).collect()
}

fn shaped<T>(values: Vec<T>, shape: &[usize], is_fortran: bool) -> Result<ArrayD<T>, String> {
    let shape = IxDyn(shape).set_f(is_fortran);
    ArrayD::from_shape_vec(shape, values).map_err(|_| "its data does not fill its shape".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()
    }

    fn floats(shape: &[usize], values: &[f64]) -> Result<Array, String> {
        Ok(Array::Float(ArrayD::from_shape_vec(shape, values.to_vec()).unwrap()))
    }

    #[test]
    fn arrays_come_as_they_were_saved() {
        let f4: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let ints = ArrayD::from_shape_vec(vec![2], vec![-1, 255]).unwrap();
        for (case, bytes, expected) in [
            ("rows", file("<f4", "False", "(2, 2)", &f4), floats(&[2, 2], &[1., 2., 3., 4.])),
            ("columns", file("<f4", "True", "(2, 2)", &f4), floats(&[2, 2], &[1., 3., 2., 4.])),
            ("vector", file("<f4", "False", "(4,)", &f4), floats(&[4], &[1., 2., 3., 4.])),
            ("number", file("<f4", "False", "()", &f4[..4]), floats(&[], &[1.])),
            ("half", file("<f2", "False", "(1,)", &[0, 0xc0]), floats(&[1], &[-2.])),
            ("short", file("<i2", "False", "(2,)", &[255, 255, 255, 0]), Ok(Array::Int(ints))),
        ] {
            assert_eq!(read(&bytes), expected, "{case}");
        }
        for (case, bytes) in [
            ("short data", file("<f4", "False", "(3, 2)", &f4)),
            ("another byte order", file(">f4", "False", "(2, 2)", &f4)),
            ("objects", file("|O", "False", "(2, 2)", &f4)),
            ("no array", b"PK\x03\x04".to_vec()),
            ("cut off", file("<f4", "False", "(2, 2)", &f4)[..20].to_vec()),
        ] {
            assert!(read(&bytes).is_err(), "{case}");
        }
    }
}
