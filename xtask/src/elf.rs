//! Reads the names of an ELF file's sections: enough to see that what a linker made are BPF programs.
//! Knows the 64-bit little-endian layout only (System V ABI, chapter 4), which is what `bpfel` is.

use anyhow::{Context, Result, bail};

/// `e_machine` of the Linux BPF machine.
const EM_BPF: u16 = 247;

/// The section names of a BPF object; an error names what else the file is.
pub(crate) fn bpf_sections(file: &[u8]) -> Result<Vec<String>> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("this is no 64-bit little-endian ELF file");
    }
    let machine = u16_at(file, 18)?;
    if machine != EM_BPF {
        bail!("this is an ELF file for machine {machine}, not for BPF ({EM_BPF})");
    }
    let table = usize::try_from(u64_at(file, 40)?)?;
    let size = usize::from(u16_at(file, 58)?);
    let count = usize::from(u16_at(file, 60)?);
    let names = usize::from(u16_at(file, 62)?);
    let header = |index: usize| table.checked_add(index.checked_mul(size)?);
    let names = header(names).context("section names lie outside of the file")?;
    let names = usize::try_from(u64_at(file, names + 24)?)?;
    (0..count)
        .map(|index| {
            let at = header(index).context("a section lies outside of the file")?;
            let start = names + usize::try_from(u32_at(file, at)?)?;
            let name = file.get(start..).context("a section's name lies outside of the file")?;
            let end = name.iter().position(|byte| *byte == 0).context("a section's name has no end")?;
            Ok(String::from_utf8_lossy(&name[..end]).into_owned())
        })
        .collect()
}

fn u16_at(file: &[u8], at: usize) -> Result<u16> {
    bytes_at(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Result<u32> {
    bytes_at(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Result<u64> {
    bytes_at(file, at).map(u64::from_le_bytes)
}

fn bytes_at<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N]> {
    file.get(at..).and_then(|rest| rest.first_chunk()).copied().context("the ELF file ends too early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bpf_object_is_refused_by_name() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let error = bpf_sections(&own).unwrap_err().to_string();
        assert!(error.contains("not for BPF"), "{error}");
        assert!(bpf_sections(b"#!/bin/sh").is_err());
        assert!(bpf_sections(b"\x7fELF\x02\x01").is_err());
    }

    #[test]
    fn section_names_are_found_at_every_length_of_file_or_refused() {
        // One null section and one named "license", their names at the end of the file.
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18..20].copy_from_slice(&EM_BPF.to_le_bytes());
        file[40] = 64;
        file[58] = 64;
        file[60] = 2;
        file[62] = 1;
        file.resize(64 + 2 * 64, 0);
        file[128..132].copy_from_slice(&1_u32.to_le_bytes());
        file[128 + 24..128 + 32].copy_from_slice(&192_u64.to_le_bytes());
        file.extend_from_slice(b"\0license\0");
        assert_eq!(bpf_sections(&file).unwrap(), ["", "license"]);
        for length in 0..file.len() - 1 {
            assert!(bpf_sections(&file[..length]).is_err(), "{length}");
        }
    }
}
