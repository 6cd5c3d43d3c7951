//! Arrays as NumPy saves them (`.npy`, format versions 1 to 3), and archives of several arrays
//! (`.npz`, as `numpy.savez` writes them).
//!
//! Knows bytes; does not know files or what an array is for.

use acb_fuse::Array;
use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

/// Reads the array from the content of a `.npy` file, or returns what is wrong with it.
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

/// Reads all arrays of an archive, each with its name.
pub fn read_archive(bytes: &[u8]) -> Result<Vec<(String, Array)>, String> {
    let files = files(bytes).ok_or("it is not an archive of numpy.savez")?;
    let array = |(name, method, data): (&str, u16, &[u8])| {
        let name = name.strip_suffix(".npy").unwrap_or(name).to_owned();
        match (method, read(data)) {
            (0, array) => Ok((name, array?)),
            _ => Err("it is compressed; write it with numpy.savez".to_owned()),
        }
    };
    files.into_iter().map(array).collect()
}

/// Returns name, compression method and data of every file of a zip archive, from the directory
/// at its end (PKWARE's APPNOTE, 4.3).
fn files(bytes: &[u8]) -> Option<Vec<(&str, u16, &[u8])>> {
    let short = |at: &[u8], from: usize| Some(u16::from_le_bytes(*at.get(from..)?.first_chunk()?));
    let long = |at: &[u8], from: usize| {
        usize::try_from(u32::from_le_bytes(*at.get(from..)?.first_chunk()?)).ok()
    };
    let end = bytes.windows(4).rposition(|window| window == b"PK\x05\x06")?;
    let end = bytes.get(end..)?;
    let mut entry = bytes.get(long(end, 16)?..)?;
    let mut files = Vec::new();
    for _ in 0..short(end, 10)? {
        entry = entry.strip_prefix(b"PK\x01\x02")?;
        let (method, length, local) = (short(entry, 6)?, long(entry, 16)?, long(entry, 38)?);
        let lengths = [24, 26, 28].map(|from| short(entry, from).map(usize::from));
        let [Some(name), Some(extra), Some(comment)] = lengths else { return None };
        let (text, rest) = entry.get(42..)?.split_at_checked(name)?;
        entry = rest.get(extra..)?.get(comment..)?;
        // The local file header before the data has a name and extra fields of its own.
        let header = bytes.get(local..)?.strip_prefix(b"PK\x03\x04")?;
        let data = header.get(26..)?.get(usize::from(short(header, 22)?)..)?;
        let data = data.get(usize::from(short(header, 24)?)..)?.get(..length)?;
        files.push((std::str::from_utf8(text).ok()?, method, data));
    }
    Some(files)
}

/// Splits a file into the header, which is the text of a Python dictionary, and the data.
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

/// Returns the value of a key, as text; it must not contain a comma.
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

    /// Returns an archive of uncompressed files.
    fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in files {
            let local = (bytes.len() as u32).to_le_bytes();
            let (length, name_length) =
                ((data.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
            let times = [20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            // NumPy writes 64-bit lengths into the extra fields of the local file header.
            let (unknown, extra) = ([255; 8], [4u8, 0]);
            bytes.extend([b"PK\x03\x04", &times[..], &unknown, &name_length, &extra].concat());
            bytes.extend([name.as_bytes(), &[1, 0, 0, 0], data].concat());
            directory.extend([b"PK\x01\x02", &[20, 0][..], &times, &length, &length].concat());
            directory.extend([&name_length[..], &[0; 12], &local, name.as_bytes()].concat());
        }
        let (count, begin) = ((files.len() as u16).to_le_bytes(), bytes.len() as u32);
        let size = (directory.len() as u32).to_le_bytes();
        let end = [b"PK\x05\x06", &[0; 4][..], &count, &count, &size, &begin.to_le_bytes()];
        [bytes, directory, end.concat(), vec![0, 0]].concat()
    }

    #[test]
    fn archives_hold_arrays_by_name() {
        let one = file("<f4", "False", "(1,)", &1.0f32.to_le_bytes());
        let two = file("|u1", "False", "(2,)", &[7, 8]);
        let both = archive(&[("x.npy", one), ("mask.npy", two)]);
        let mask = Array::Int(ArrayD::from_shape_vec(vec![2], vec![7, 8]).unwrap());
        let expected = [("x".to_owned(), floats(&[1], &[1.]).unwrap()), ("mask".to_owned(), mask)];
        assert_eq!(read_archive(&both).unwrap(), expected);
        for cut in 0..both.len() - 2 {
            assert!(read_archive(&both[..cut]).is_err(), "cut at {cut}");
        }
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
