mod materializes;
mod quantizes;
mod refuses;
mod rotates;
mod support;
