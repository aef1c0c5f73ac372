//! The binary: everything is in the library.

/// What it is for, and why not everywhere, stands in Cargo.toml.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    readygate::cli::main(std::env::args_os())
}
