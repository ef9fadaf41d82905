// Command bundle-tool packs bin/mobileops-scan for a mobileops that has it within
// itself, when it changed: "make release".
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/scan/worker"
	"github.com/zeebo/blake3"
)

func main() {
	program := flag.String("worker", filepath.Join("bin", worker.Name), "the executable")
	dir := flag.String("to", filepath.Join("internal", "scan", "worker", "bundled"), "where it is embedded from")
	flag.Parse()
	if err := pack(*program, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "bundle-tool:", err)
		os.Exit(1)
	}
}

func pack(program, dir string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	sum := blake3.Sum256(data)
	aboutPath, archivePath := filepath.Join(dir, worker.AboutName), filepath.Join(dir, worker.ArchiveName)
	var there worker.About
	text, err := os.ReadFile(aboutPath)
	if err == nil && json.Unmarshal(text, &there) == nil && there.Digest == hex.EncodeToString(sum[:]) {
		if _, err := os.Stat(archivePath); err == nil {
			return nil
		}
	}
	// The description goes first and comes last, so that what an interrupted run
	// leaves is not taken for a worker.
	if err := os.Remove(aboutPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var archive bytes.Buffer
	about, err := worker.Pack(bytes.NewReader(data), &archive, zstd.SpeedBestCompression)
	if err != nil {
		return err
	}
	if err := os.WriteFile(archivePath, archive.Bytes(), 0o644); err != nil {
		return err
	}
	if text, err = json.MarshalIndent(about, "", "\t"); err != nil {
		return err
	}
	fmt.Printf("%s: %d bytes, packed %d\n", program, about.Size, archive.Len())
	return os.WriteFile(aboutPath, append(text, '\n'), 0o644)
}
