//! Files that are either complete or not there.

use std::fs;
use std::io;
use std::path::Path;

use convpc::atomic::write;

use crate::tools::names;

fn write_text(path: &Path, text: &str) -> io::Result<()> {
    write(path, |file| file.write_all(text.as_bytes()))
}

#[test]
fn a_file_is_created_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    for text in ["first", "second"] {
        write_text(&path, text).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(names(folder.path()), ["a.txt"]);
    }
}

#[test]
fn a_failure_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let fail = || {
        write(&path, |file| {
            file.write_all(&[b'x'; 100_000])?;
            Err(io::Error::other("out of paper"))
        })
    };
    assert_eq!(fail().unwrap_err().to_string(), "out of paper");
    assert!(names(folder.path()).is_empty());
    fs::write(&path, "kept").unwrap();
    fail().unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn the_old_contents_are_there_until_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, "old").unwrap();
    write(&path, |file| {
        file.write_all(&[b'x'; 100_000])?;
        assert_eq!(fs::read_to_string(&path)?, "old");
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 100_000);
}

#[test]
fn a_panic_leaves_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let result = std::panic::catch_unwind(|| write(&path, |_| panic!("expected by the test")));
    assert!(result.is_err());
    assert!(names(folder.path()).is_empty());
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_text(folder.path(), "text").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    assert!(error.to_string().contains("name a file inside it"), "{error}");
    let error = write_text(&folder.path().join("none").join("a.txt"), "text").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let error = write_text(Path::new(""), "text").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_read_only_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, "kept").unwrap();
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let error = write_text(&path, "lost").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, File, Permissions};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::{io, write, write_text};
    use crate::tools::names;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_file_has_the_usual_permissions() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("usual")).unwrap();
        write_text(&folder.path().join("a.txt"), "text").unwrap();
        assert_eq!(mode(&folder.path().join("a.txt")), mode(&folder.path().join("usual")));
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        for permissions in [0o600, 0o664, 0o755] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(permissions)).unwrap();
            write_text(&path, "new").unwrap();
            assert_eq!(mode(&path), permissions);
        }
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (link, file) = (folder.path().join("link"), folder.path().join("file"));
        fs::write(&file, "old").unwrap();
        symlink("file", &link).unwrap();
        write_text(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(names(folder.path()), ["file", "link"]);
    }

    // No test writes to a real device: a superuser whose build is wrong would replace it.
    #[test]
    fn a_pipe_is_written_directly() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let path = format!("/dev/fd/{}", writer.as_raw_fd());
        write_text(Path::new(&path), "text").unwrap();
        drop(writer);
        assert_eq!(std::io::read_to_string(&mut reader).unwrap(), "text");
    }

    #[test]
    fn what_fails_while_the_buffer_is_flushed_is_an_error() {
        let (reader, writer) = std::io::pipe().unwrap();
        let path = format!("/dev/fd/{}", writer.as_raw_fd());
        let error = write(Path::new(&path), |file| {
            file.write_all(b"text")?;
            drop(reader);
            Ok(())
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_socket_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _socket = UnixListener::bind(&path).unwrap();
        assert!(write_text(&path, "text").is_err());
        assert!(fs::metadata(&path).unwrap().file_type().is_socket());
        assert_eq!(names(folder.path()), ["socket"]);
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_that_is_not_there_makes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (link, inside) = (folder.path().join("link"), folder.path().join("inside"));
    fs::create_dir(&inside).unwrap();
    std::os::unix::fs::symlink("inside/new", &link).unwrap();
    write_text(&link, "text").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(inside.join("new")).unwrap(), "text");
}

#[cfg(unix)]
#[test]
fn new_contents_of_a_private_file_are_private_from_the_first_byte() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("private");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    write(&path, |_| {
        for entry in fs::read_dir(folder.path())? {
            assert_eq!(entry?.metadata()?.permissions().mode() & 0o777, 0o600);
        }
        Ok(())
    })
    .unwrap();
}
