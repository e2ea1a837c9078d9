//! The GPU architectures that artifacts carry kernels for.

use std::fmt;

/// What the kernels are compiled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A100.
    Sm80,
    /// RTX 4090, L40.
    Sm89,
    /// H100, H200.
    Sm90a,
    /// B200.
    Sm100a,
    /// RTX 5090.
    Sm120,
    /// PTX that drivers compile for any later GPU.
    Compute80,
}

impl Target {
    /// All targets, the fallback last.
    pub const ALL: [Target; 6] =
        [Target::Sm80, Target::Sm89, Target::Sm90a, Target::Sm100a, Target::Sm120, Target::Compute80];

    /// As NVRTC and users spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Sm80 => "sm_80",
            Target::Sm89 => "sm_89",
            Target::Sm90a => "sm_90a",
            Target::Sm100a => "sm_100a",
            Target::Sm120 => "sm_120",
            Target::Compute80 => "compute_80",
        }
    }

    /// Whether the result is PTX.
    pub const fn is_ptx(self) -> bool {
        matches!(self, Target::Compute80)
    }

    /// The target of this name.
    pub fn parse(name: &str) -> Result<Target, UnknownTarget> {
        Target::ALL
            .into_iter()
            .find(|target| target.name() == name)
            .ok_or_else(|| UnknownTarget { name: name.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A target that does not exist.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no target\nhelp: the targets are {}",
    Target::ALL.map(Target::name).join(", ")
)]
pub struct UnknownTarget {
    /// What was asked for.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_found_by_its_name() {
        for target in Target::ALL {
            assert_eq!(Target::parse(target.name()), Ok(target));
        }
    }

    #[test]
    fn an_unknown_target_lists_the_known_ones() {
        let error = Target::parse("sm_91").unwrap_err().to_string();
        assert!(error.contains("`sm_91`") && error.contains("sm_90a"), "{error}");
    }
}
