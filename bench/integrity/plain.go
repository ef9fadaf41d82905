package main

import (
	"bytes"
	"encoding/binary"
	"log"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// plain does the least that a tool must do that looks at every file: it lists
// directories and either stats each entry ("stat"), or opens, stats and reads
// each regular file to its end ("read"), with as many workers as cores. What it
// reads it throws away.
func plain(mode, root string) {
	var (
		mu    sync.Mutex
		cond  = sync.NewCond(&mu)
		queue = []string{root}
		busy  int
		wg    sync.WaitGroup
	)
	for range runtime.NumCPU() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf, dents := make([]byte, 256<<10), make([]byte, 32<<10)
			mu.Lock()
			defer mu.Unlock()
			for {
				for len(queue) == 0 && busy > 0 {
					cond.Wait()
				}
				if len(queue) == 0 {
					return
				}
				dir := queue[len(queue)-1]
				queue = queue[:len(queue)-1]
				busy++
				mu.Unlock()
				subs := plainDir(mode == "read", dir, buf, dents)
				mu.Lock()
				busy--
				queue = append(queue, subs...)
				cond.Broadcast()
			}
		}()
	}
	wg.Wait()
}

// plainDir visits one directory and returns those below it.
func plainDir(read bool, dir string, buf, dents []byte) (subs []string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	for {
		n, err := unix.Getdents(fd, dents)
		if err != nil {
			log.Fatal(err)
		}
		if n == 0 {
			return subs
		}
		for b := dents[:n]; len(b) > 0; {
			size := binary.LittleEndian.Uint16(b[16:])
			kind, name := b[18], string(b[19:19+bytes.IndexByte(b[19:size], 0)])
			b = b[size:]
			if name == "." || name == ".." {
				continue
			}
			if kind == unix.DT_DIR {
				subs = append(subs, dir+"/"+name)
			}
			if kind != unix.DT_REG || !read {
				if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
					log.Fatal(err)
				}
				continue
			}
			plainRead(fd, name, buf)
		}
	}
}

func plainRead(dir int, name string, buf []byte) {
	f, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer unix.Close(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		log.Fatal(err)
	}
	for {
		n, err := unix.Read(f, buf)
		if err != nil {
			log.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}
