package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"
)

// What an archive holds, by name. The node's database may have segments of its journal beside it.
const (
	archivedNode      = "node.db"
	archivedControl   = "control.db"
	archivedMasterKey = "master.key"
	archivedNodeKey   = "node.key"
)

var archivedName = regexp.MustCompile(`^(node\.db(\.journal\.\d{8})?|control\.db|master\.key|node\.key)$`)

// ageIntro begins an encrypted archive.
const ageIntro = "age-encryption.org/"

// archiveFile is a file to be archived.
type archiveFile struct{ name, path string }

// writeArchive makes the archive path of files, under a name that is complete only when the archive is, and returns its
// size. Without recipients it is not encrypted.
func writeArchive(path string, files []archiveFile, recipients []age.Recipient) (size int64, err error) {
	out, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // made with mode 0600
	if err != nil {
		return 0, fmt.Errorf("cannot make the archive: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write the archive %s: %w", path, err)
			_, _ = out.Close(), os.Remove(out.Name())
		}
	}()
	if err := packFiles(out, files, recipients); err != nil {
		return 0, err
	}
	info, err := out.Stat()
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return 0, err
	}
	if err := os.Rename(out.Name(), path); err != nil {
		return 0, err
	}
	return info.Size(), syncFolder(filepath.Dir(path))
}

func packFiles(out io.Writer, files []archiveFile, recipients []age.Recipient) error {
	closers := []io.Closer{}
	if len(recipients) > 0 {
		sealed, err := age.Encrypt(out, recipients...)
		if err != nil {
			return err
		}
		out, closers = sealed, append(closers, sealed)
	}
	zipped := gzip.NewWriter(out)
	packed := tar.NewWriter(zipped)
	for _, f := range files {
		if err := packFile(packed, f); err != nil {
			return err
		}
	}
	for _, c := range append([]io.Closer{packed, zipped}, closers...) {
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

func packFile(packed *tar.Writer, f archiveFile) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := packed.WriteHeader(&tar.Header{Name: f.name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = io.Copy(packed, in)
	return err
}

// readArchive unpacks an archive into a folder and returns the names of what was in it. All of it was read then: what is
// cut off or changed is an error.
func readArchive(path, folder string, identities []age.Identity) (names []string, err error) {
	file, err := os.Open(path) //nolint:gosec // the operator's own path
	if err != nil {
		return nil, plainFileError(err)
	}
	defer file.Close()
	in := bufio.NewReader(file)
	unsealed := io.Reader(in)
	if intro, err := in.Peek(len(ageIntro)); err == nil && string(intro) == ageIntro {
		if len(identities) == 0 {
			return nil, fmt.Errorf("the archive %s is encrypted; name the file of a key that opens it with --identity", path)
		}
		if unsealed, err = age.Decrypt(in, identities...); err != nil {
			if _, none := errors.AsType[*age.NoIdentityMatchError](err); none {
				return nil, fmt.Errorf("the archive %s is encrypted for other keys than those of --identity", path)
			}
			return nil, damaged(path, err)
		}
	}
	zipped, err := gzip.NewReader(unsealed)
	if err != nil {
		return nil, damaged(path, err)
	}
	packed := tar.NewReader(zipped)
	for {
		header, err := packed.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, damaged(path, err)
		}
		if header.Typeflag != tar.TypeReg || !archivedName.MatchString(header.Name) || slices.Contains(names, header.Name) {
			return nil, fmt.Errorf("%s is no archive of carpool db backup: it holds %q", path, header.Name)
		}
		if err := unpackFile(packed, filepath.Join(folder, header.Name)); err != nil { //nolint:gosec // a name from the list
			return nil, damaged(path, err)
		}
		names = append(names, header.Name)
	}
	if _, err := io.Copy(io.Discard, zipped); err != nil { //nolint:gosec // nothing is kept; the check sum is at the end
		return nil, damaged(path, err)
	}
	for _, name := range []string{archivedNode, archivedControl} {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%s is no archive of carpool db backup: %s is not in it", path, name)
		}
	}
	return names, nil
}

func damaged(path string, err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok { // of what is written, not of what is read
		return fmt.Errorf("cannot unpack the archive: %w", pathError)
	}
	return fmt.Errorf("the archive %s is damaged or none of carpool db backup: %w", path, err)
}

func unpackFile(in io.Reader, path string) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // a name from the list
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil { //nolint:gosec // as large as the databases were
		return err
	}
	return out.Sync()
}

// readRecipients reads the public keys of age that --recipient names.
func readRecipients(keys []string) ([]age.Recipient, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	recipients, err := age.ParseRecipients(strings.NewReader(strings.Join(keys, "\n")))
	if err != nil {
		return nil, usagef("the flag --recipient takes a public key of age (age1…): %v", err)
	}
	return recipients, nil
}

// readIdentities reads the file of private keys that --identity names.
func (a *app) readIdentities(name string) ([]age.Identity, error) {
	if name == "" {
		return nil, nil
	}
	text, err := a.readInput(name)
	if err != nil {
		return nil, err
	}
	identities, err := age.ParseIdentities(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s holds no private keys of age (AGE-SECRET-KEY-1…)", displayName(name))
	}
	return identities, nil
}

// syncFolder makes renames in a folder survive a power loss, where the system can do that.
func syncFolder(path string) error {
	folder, err := os.Open(path) //nolint:gosec // the operator's own path
	if err != nil {
		return err
	}
	_ = folder.Sync() // not every file system can
	return folder.Close()
}
