package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// anchorServer keeps what is PUT under each path, over TLS, in files of the
// directory in its argument, where it also writes url, ca.pem and, for
// messages of a syslog that come by UDP, syslog-address and syslog. It asks for
// the token "let-me-in". It ends by SIGINT or SIGTERM.
func anchorServer() {
	stop := make(chan os.Signal, 1) // before anybody can know that it is there
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	dir := os.Args[1]
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var mu sync.Mutex
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		path := filepath.Join(dir, "kept-"+strings.ReplaceAll(strings.Trim(r.URL.Path, "/"), "/", "_"))
		switch {
		case r.Header.Get("Authorization") != "Bearer let-me-in":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPut:
			b, _ := io.ReadAll(r.Body)
			must(os.WriteFile(path, b, 0o644))
			w.WriteHeader(http.StatusNoContent)
		default:
			http.ServeFile(w, r, path)
		}
	}))
	defer server.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(err)
	go func() {
		b := make([]byte, 2048)
		for {
			n, _, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			f, err := os.OpenFile(filepath.Join(dir, "syslog"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			must(err)
			fmt.Fprintf(f, "%s\n", b[:n])
			f.Close()
		}
	}()
	must(os.WriteFile(filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644))
	must(os.WriteFile(filepath.Join(dir, "syslog-address"), []byte("udp://"+udp.LocalAddr().String()), 0o644))
	must(os.WriteFile(filepath.Join(dir, "url.tmp"), []byte(server.URL), 0o644))
	must(os.Rename(filepath.Join(dir, "url.tmp"), filepath.Join(dir, "url")))
	<-stop
}
