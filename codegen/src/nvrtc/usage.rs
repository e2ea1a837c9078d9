//! What the compiled kernels take of an SM, read from the cubin itself (ELF sections `.nv.info.*`, `.nv.shared.*`).

/// Resources of one entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelUsage {
    /// The symbol.
    pub name: String,
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of static shared memory a block.
    pub smem_bytes: u32,
    /// Bytes of local memory a thread: spilled registers and arrays that are indexed at run time.
    pub local_bytes: u32,
}

/// The kernels of a cubin, by name; none for anything that is not an ELF file.
pub fn parse(image: &[u8]) -> Vec<KernelUsage> {
    let mut kernels = Elf::parse(image).map_or_else(Vec::new, |elf| elf.kernels());
    kernels.sort_by(|a, b| a.name.cmp(&b.name));
    kernels
}

struct Section<'a> {
    name: &'a str,
    kind: u32,
    info: u32,
    size: u64,
    bytes: &'a [u8],
}

struct Elf<'a> {
    sections: Vec<Section<'a>>,
}

impl<'a> Elf<'a> {
    fn parse(image: &'a [u8]) -> Option<Elf<'a>> {
        if image.get(..5)? != b"\x7fELF\x02" {
            return None;
        }
        let table = read_u64(image, 0x28)? as usize;
        let (entry, count, names) =
            (read_u16(image, 0x3a)? as usize, read_u16(image, 0x3c)? as usize, read_u16(image, 0x3e)? as usize);
        let header = |index: usize| image.get(table + index * entry..table + (index + 1) * entry);
        let strings = contents(image, header(names)?)?;
        let mut sections = Vec::with_capacity(count);
        for index in 0..count {
            let row = header(index)?;
            sections.push(Section {
                name: text(strings, read_u32(row, 0)? as usize)?,
                kind: read_u32(row, 4)?,
                info: read_u32(row, 0x2c)?,
                size: read_u64(row, 0x20)?,
                bytes: contents(image, row).unwrap_or(&[]),
            });
        }
        Some(Elf { sections })
    }

    fn kernels(&self) -> Vec<KernelUsage> {
        let symbols = self.symbols();
        self.sections
            .iter()
            .filter_map(|section| {
                let name = section.name.strip_prefix(".text.")?;
                let symbol = symbols.iter().position(|s| *s == name)? as u32;
                Some(KernelUsage {
                    name: name.to_owned(),
                    // The upper byte of sh_info of a kernel's code is its register count.
                    registers: self.attribute(EIATTR_REGCOUNT, symbol).unwrap_or(section.info >> 24),
                    smem_bytes: self.size_of(&format!(".nv.shared.{name}")),
                    local_bytes: self.attribute(EIATTR_FRAME_SIZE, symbol).unwrap_or(0),
                })
            })
            .collect()
    }

    fn symbols(&self) -> Vec<&'a str> {
        const SYMTAB: u32 = 2;
        let names = self.sections.iter().find(|s| s.name == ".strtab");
        let table = self.sections.iter().find(|s| s.kind == SYMTAB);
        let (Some(names), Some(table)) = (names, table) else {
            return Vec::new();
        };
        let (rows, _) = table.bytes.as_chunks::<24>();
        rows.iter()
            .map(|row| {
                let at = read_u32(row, 0).unwrap_or(0) as usize;
                text(names.bytes, at).unwrap_or("")
            })
            .collect()
    }

    /// Value of an attribute of a kernel in `.nv.info`: format, attribute, size, then symbol and value.
    fn attribute(&self, wanted: u8, symbol: u32) -> Option<u32> {
        const EIFMT_SVAL: u8 = 4;
        let info = self.sections.iter().find(|s| s.name == ".nv.info")?.bytes;
        let mut at = 0;
        while at + 4 <= info.len() {
            let (format, attribute) = (info[at], info[at + 1]);
            let size = read_u16(info, at + 2)? as usize;
            if format == EIFMT_SVAL && attribute == wanted && read_u32(info, at + 4)? == symbol {
                return read_u32(info, at + 8);
            }
            at += 4 + if format == EIFMT_SVAL { size } else { 0 };
        }
        None
    }

    fn size_of(&self, name: &str) -> u32 {
        let section = self.sections.iter().find(|s| s.name == name);
        section.map_or(0, |section| section.size as u32)
    }
}

const EIATTR_FRAME_SIZE: u8 = 0x11;
const EIATTR_REGCOUNT: u8 = 0x2f;

fn contents<'a>(image: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    let (offset, size) = (read_u64(header, 0x18)? as usize, read_u64(header, 0x20)? as usize);
    image.get(offset..offset.checked_add(size)?)
}

fn text(strings: &[u8], at: usize) -> Option<&str> {
    let rest = strings.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
