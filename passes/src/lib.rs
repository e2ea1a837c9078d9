

pub mod cost;
pub mod lower_to_plan;
