//! The arguments of the CUDA kernels, declared once.
//!
//! Each struct and constant of the modules below becomes a Rust item and a line of [`header`], which the kernels include. Layouts
//! agree because both sides use the C layout; the header asserts the sizes.

/// An address in device memory; 0 is no tensor.
pub type Address = u64;

macro_rules! device_structs {
    ($( $(#[$doc:meta])* struct $name:ident { $( $(#[$field_doc:meta])* $field:ident : $ty:ty = $c:literal, )* } )*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
            pub struct $name { $( $(#[$field_doc])* pub $field: $ty, )* }
        )*

        pub(super) fn declarations() -> String {
            let mut text = String::new();
            $(
                text.push_str(concat!("struct ", stringify!($name), " {\n", $( "  ", $c, ";\n", )* "};\n"));
                text.push_str(&format!(
                    "static_assert(sizeof({0}) == {1}, \"{0} differs from the host's\");\n",
                    stringify!($name), size_of::<$name>(),
                ));
            )*
            text
        }
    };
}

macro_rules! device_constants {
    ($( $(#[$doc:meta])* $name:ident = $value:expr; )*) => {
        $( $(#[$doc])* pub const $name: u32 = $value; )*

        pub(super) fn declarations() -> String {
            let mut text = String::new();
            $( text.push_str(&format!("constexpr unsigned int {} = {};\n", stringify!($name), $name)); )*
            text
        }
    };
}

// Behind the macros, which they use.
mod constants;
mod linear;
mod observe;
mod rows;
mod sequence;

pub use constants::*;
pub use linear::*;
pub use observe::*;
pub use rows::*;
pub use sequence::*;

/// The text of `params.cuh`: constants, and structs behind those that they hold.
pub fn header() -> String {
    let structs = [rows::declarations(), linear::declarations(), sequence::declarations(), observe::declarations()];
    format!("#pragma once\n{}{}", constants::declarations(), structs.concat())
}
