//! The image of a sandbox: one file, `/pause`, a program that does nothing for ever.
//!
//! A network namespace of the engine lives as long as a process of its container does, so a sandbox needs one, also where
//! no registry can be reached and where a service's own image has neither a shell nor a C library. Hence a program without
//! any need: an ELF header and a loop around one system call, written out below, and `FROM scratch` around it. The other
//! ways need more: Kubernetes' own pause image comes from a registry; the engine's init (`docker-init`) wants a child that
//! stays; a program of the worker's image is linked with that image's libraries.
//!
//! As the first process of its container it has no children, and every signal but a kill from outside is ignored for it by
//! the kernel (pid_namespaces(7)).
//!
//! Must not know stacks or lanes.

use std::collections::BTreeMap;

use super::rig::RigFault;
use crate::engine::{BuildError, BuildSpec, Engine, EngineError};

/// The program's path in the image.
pub(super) const PROGRAM: &str = "/pause";
/// Changed with what is in the image.
const TAG: &str = "andon-sandbox:1";
const DOCKERFILE: &str = "FROM scratch\nCOPY pause /pause\nENTRYPOINT [\"/pause\"]\n";

/// Where the program lies in memory; aligned for pages of every size.
const ADDRESS: u64 = 0x40_0000;
const HEADER_BYTES: u16 = 64;
const SEGMENT_BYTES: u16 = 56;

/// `EM_X86_64`, and `again: pause(); goto again`.
#[cfg(target_arch = "x86_64")]
const PROGRAM_CODE: (u16, &[u8]) = (
    62,
    &[
        0xb8, 34, 0, 0, 0, // mov eax, SYS_pause
        0x0f, 0x05, // syscall
        0xeb, 0xf7, // jmp to the start
    ],
);

/// `EM_AARCH64`, and `again: ppoll(NULL, 0, NULL, NULL); goto again`: there is no pause(2).
#[cfg(target_arch = "aarch64")]
const PROGRAM_CODE: (u16, &[u8]) = (
    183,
    &[
        0x00, 0x00, 0x80, 0xd2, // mov x0, 0
        0x01, 0x00, 0x80, 0xd2, // mov x1, 0
        0x02, 0x00, 0x80, 0xd2, // mov x2, 0
        0x03, 0x00, 0x80, 0xd2, // mov x3, 0
        0x28, 0x09, 0x80, 0xd2, // mov x8, SYS_ppoll
        0x01, 0x00, 0x00, 0xd4, // svc 0
        0xfa, 0xff, 0xff, 0x17, // b to the start
    ],
);

/// The image, by a name that the engine knows; made where it is not there.
pub(super) async fn image(engine: &dyn Engine) -> Result<&'static str, RigFault> {
    if engine.inspect_image(TAG).await?.is_none() {
        let context = context().map_err(|source| RigFault::File {
            what: "write the image of a sandbox",
            path: TAG.into(),
            source,
        })?;
        let spec = BuildSpec {
            context: Box::pin(futures::stream::iter([Ok(context.into())])),
            dockerfile: "Dockerfile".to_owned(),
            target: String::new(),
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            tag: TAG.to_owned(),
        };
        engine.build_image(spec).await.map_err(|error| match error {
            BuildError::Engine(error) => error,
            BuildError::Failed(failure) => EngineError::Protocol {
                what: "build the image of a sandbox".to_owned(),
                message: failure.message,
            },
        })?;
    }
    Ok(TAG)
}

fn context() -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, bytes) in [("Dockerfile", 0o644, DOCKERFILE.as_bytes()), ("pause", 0o755, &program())] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes)?;
    }
    tar.into_inner()
}

/// The program as elf(5) has it: a header, one segment that is the whole file, the code.
fn program() -> Vec<u8> {
    let (machine, code) = PROGRAM_CODE;
    let start = u64::from(HEADER_BYTES + SEGMENT_BYTES);
    let size = start + code.len() as u64;
    // 64 bits, little endian, version 1, System V.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let put16 = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let put32 = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let put64 = |file: &mut Vec<u8>, value: u64| file.extend(value.to_le_bytes());
    put16(&mut file, 2); // e_type: ET_EXEC
    put16(&mut file, machine);
    put32(&mut file, 1); // e_version
    put64(&mut file, ADDRESS + start); // e_entry
    put64(&mut file, u64::from(HEADER_BYTES)); // e_phoff
    put64(&mut file, 0); // e_shoff
    put32(&mut file, 0); // e_flags
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    for value in [HEADER_BYTES, SEGMENT_BYTES, 1, 0, 0, 0] {
        put16(&mut file, value);
    }
    put32(&mut file, 1); // p_type: PT_LOAD
    put32(&mut file, 0b101); // p_flags: read, execute
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    for value in [0, ADDRESS, ADDRESS, size, size, 0x1_0000] {
        put64(&mut file, value);
    }
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    #[test]
    fn the_program_runs_and_does_not_end_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pause");
        std::fs::write(&path, program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // 124: it was still there. Another test may be forking while the file is open here; `timeout` starts it after that.
        let mut command = Command::new("timeout");
        let status = command.arg("0.3").arg(&path).status().unwrap();
        assert_eq!(status.code(), Some(124));
    }

    #[tokio::test]
    async fn the_image_is_made_once() {
        let engine = crate::engine::fake::FakeEngine::new();
        for _ in 0..2 {
            assert_eq!(image(engine.as_ref()).await.unwrap(), TAG);
        }
        let builds = engine.calls().into_iter().filter(|call| call.starts_with("build-image")).count();
        assert_eq!(builds, 1);
    }
}
