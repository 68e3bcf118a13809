package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// TestListensOnlyOnItsSocket: the embedded etcd is reachable through one socket in a closed directory, by no port and
// by no abstract socket, which any local user could reach.
func TestListensOnlyOnItsSocket(t *testing.T) {
	tcp, unix := listeners(t)
	dir := shortDir(t)
	openAt(t, dir, new(logs))
	tcpNow, unixNow := listeners(t)
	if tcpNow != tcp {
		t.Errorf("listening TCP sockets went from\n%s to\n%s", tcp, tcpNow)
	}
	if want := unix + filepath.Join(dir, "client.sock") + "\n"; unixNow != want {
		t.Errorf("listening Unix sockets are\n%s want\n%s", unixNow, want)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the directory's mode is %v, %v", fi.Mode(), err)
	}
}

// listeners lists this process's listening sockets: TCP by inode, Unix by path.
func listeners(t *testing.T) (tcp, unix string) {
	t.Helper()
	mine := map[string]bool{}
	fds, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil {
			mine[strings.Trim(strings.TrimPrefix(link, "socket:"), "[]")] = true
		}
	}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		must(t, err)
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[3] == "0A" && mine[f[9]] { // proc(5): state LISTEN, inode
				tcp += f[9] + "\n"
			}
		}
	}
	b, err := os.ReadFile("/proc/net/unix")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 7 && f[3] == "00010000" && mine[f[6]] { // flag SO_ACCEPTCON
			unix += strings.Join(f[7:], " ") + "\n"
		}
	}
	return tcp, unix
}

// TestOpenErrors: what is wrong with the disk is said in one sentence that names the file.
func TestOpenErrors(t *testing.T) {
	cfg := func(dir string) Config {
		return Config{Network: "default", Dir: dir, Log: slog.New(slog.DiscardHandler)}
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, dir string) Config
		want    string
	}{
		{"a file in place of the directory", func(t *testing.T, dir string) Config {
			must(t, os.WriteFile(dir+"/etcd", nil, 0o600))
			return cfg(dir + "/etcd")
		}, "/etcd: not a directory"},
		{"path too long", func(_ *testing.T, dir string) Config {
			return cfg(dir + "/" + strings.Repeat("x", 100))
		}, "choose a data directory with a shorter path"},
		{"garbage in the database", func(t *testing.T, dir string) Config {
			must(t, os.MkdirAll(dir+"/member/snap", 0o700))
			must(t, os.MkdirAll(dir+"/member/wal", 0o700))
			must(t, os.WriteFile(dir+"/member/snap/db", []byte(strings.Repeat("garbage ", 4096)), 0o600))
			return cfg(dir)
		}, "start the store in"},
		{"no space left", func(t *testing.T, dir string) Config {
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
				t.Skipf("mount needs root: %v", err)
			}
			t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
			return cfg(dir)
		}, "no space left on device"},
		{"plain TCP to a cluster", func(*testing.T, string) Config {
			return Config{Endpoints: []string{"http://192.0.2.1:2379"}, Log: slog.New(slog.DiscardHandler)}
		}, "expected https://HOST:PORT"},
		{"cluster without certificates", func(*testing.T, string) Config {
			return Config{Endpoints: []string{"https://192.0.2.1:2379"}, Log: slog.New(slog.DiscardHandler)}
		}, "--etcd-ca"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(t.Context(), c.prepare(t, shortDir(t)))
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is: %v\nwant: %s", err, c.want)
			}
		})
	}
}

// TestUnreadableFact: a fact that cannot be read stops the controller, which would otherwise rule without it.
func TestUnreadableFact(t *testing.T) {
	dir := shortDir(t)
	s, err := Open(t.Context(), Config{Network: "default", Dir: dir, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	_, err = s.engine.client.Put(t.Context(), s.factKey("node/7"), "{")
	must(t, err)
	if err := s.load(t.Context()); err == nil || !strings.Contains(err.Error(), `"node/7"`) {
		t.Errorf("loading it: %v", err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), `"node/7"`) {
		t.Errorf("watching it: %v", err)
	}
	_, err = s.engine.client.Put(t.Context(), s.factKey("node/7"), "{}")
	must(t, err)
	if err := s.load(t.Context()); err == nil || !strings.Contains(err.Error(), "node/0") {
		t.Errorf("a fact in another's place: %v", err)
	}
	_, err = s.engine.client.Delete(t.Context(), s.factKey("node/7"))
	must(t, err)
	_, err = s.engine.client.Put(t.Context(), s.factKey("service/7"), "of tomorrow")
	must(t, err)
	must(t, s.load(t.Context()))
	s.Close()
}

// TestStoreGoesAway: a controller whose etcd is gone goes on with its Model, stops confirming it, says so, and
// recovers.
func TestStoreGoesAway(t *testing.T) {
	dir, out := shortDir(t), new(logs)
	first, err := Open(t.Context(), Config{Network: "default", Dir: dir, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	found(t, first)
	far := openAt(t, "@"+dir, out)
	eventually(t, "the model is confirmed", func() bool { return time.Since(far.Confirmed()) < 200*time.Millisecond })
	first.Close()
	time.Sleep(300 * time.Millisecond)
	confirmed := far.Confirmed()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := far.Update(ctx, tester, addToken(1)); err == nil || !strings.Contains(err.Error(), "the store does not answer") {
		t.Errorf("update without a store: %v", err)
	}
	if far.Confirmed() != confirmed || far.Model().Segments[1] == nil {
		t.Errorf("confirmed %v after %v; segments %v", far.Confirmed(), confirmed, far.Model().Segments)
	}
	openAt(t, dir, new(logs))
	eventually(t, "the model is confirmed again", func() bool { return far.Confirmed().After(confirmed) })
	must(t, far.Update(t.Context(), tester, addToken(2)))
	eventually(t, "the log tells of it", func() bool {
		return strings.Contains(out.String(), "store does not answer") && strings.Contains(out.String(), "store answers again")
	})
}

// TestCluster talks to an etcd of its own over TCP with mutual TLS.
func TestCluster(t *testing.T) {
	dir := shortDir(t)
	files := clusterCerts(t, dir)
	c := embed.NewConfig()
	c.Dir = dir + "/etcd"
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	client := url.URL{Scheme: "https", Host: free.Addr().String()}
	must(t, free.Close())
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{{Scheme: "unix", Path: "/none"}}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ClientTLSInfo = transport.TLSInfo{CertFile: files + "/server.crt", KeyFile: files + "/server.key", TrustedCAFile: files + "/ca.crt", ClientCertAuth: true}
	e, err := embed.StartEtcd(c)
	must(t, err)
	defer e.Close()
	<-e.Server.ReadyNotify()

	cfg := Config{
		Network: "default", Endpoints: []string{client.String()}, Log: slog.New(slog.DiscardHandler),
		CAFile: files + "/ca.crt", CertFile: files + "/client.crt", KeyFile: files + "/client.key",
	}
	s, err := Open(t.Context(), cfg)
	must(t, err)
	defer s.Close()
	found(t, s)
	must(t, verify(t, s))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	other := clusterCerts(t, shortDir(t))
	cfg.CertFile, cfg.KeyFile = other+"/client.crt", other+"/client.key"
	if s, err := Open(ctx, cfg); err == nil {
		s.Close()
		t.Error("a certificate of another CA opened the store")
	}
	cfg.CertFile = dir + "/none.crt"
	if _, err := Open(ctx, cfg); err == nil || !strings.Contains(err.Error(), "none.crt") {
		t.Errorf("missing certificate file: %v", err)
	}
	cfg.CAFile = files + "/ca.key"
	if _, err := Open(ctx, cfg); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("a key in place of the CA: %v", err)
	}
}

// clusterCerts makes the files of a CA, a server and a client.
func clusterCerts(t *testing.T, dir string) string {
	t.Helper()
	write := func(name, kind string, der []byte) {
		must(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, IsCA: name == "ca",
			BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		if ca == nil {
			ca, caKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
		must(t, err)
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		must(t, err)
		write(name+".crt", "CERTIFICATE", der)
		write(name+".key", "PRIVATE KEY", keyDER)
	}
	return dir
}

// TestDiskFillsUp: when the disk is full, the controller ends with the reason instead of going on without a store.
func TestDiskFillsUp(t *testing.T) {
	dir := shortDir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=140m"); err != nil {
		t.Skipf("mount needs root: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	s, err := Open(t.Context(), Config{Network: "default", Dir: dir, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	fill, err := os.Create(dir + "/fill")
	must(t, err)
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	for i := 0; ; i++ { // an update that took too long is no reason to stop
		big := token(i)
		big.Site = strings.Repeat("x", 1<<19)
		err = s.Update(ctx, tester, func(tx *Tx) error { tx.Put("token.create", big); return nil })
		select {
		case died := <-ran:
			if died == nil || !strings.Contains(died.Error(), "the store died") || !strings.Contains(died.Error(), "no space left") {
				t.Errorf("Run ended with %v; the update before with %v", died, err)
			}
			return
		default:
		}
		if ctx.Err() != nil {
			t.Fatalf("Run goes on after %v", err)
		}
	}
}

// TestQuota: a full store says so, and takes changes again once its quota was raised.
func TestQuota(t *testing.T) {
	dir := shortDir(t)
	cfg := Config{Network: "default", Dir: dir, Quota: 24 << 20, Log: slog.New(slog.DiscardHandler)}
	s, err := Open(t.Context(), cfg)
	must(t, err)
	big := func(i int) func(*Tx) error {
		return func(tx *Tx) error {
			x := token(i)
			x.Site = strings.Repeat("x", 1<<19)
			tx.Put("token.create", x)
			return nil
		}
	}
	for i := 0; err == nil && i < 100; i++ {
		err = s.Update(t.Context(), tester, big(i))
	}
	if err == nil || !strings.Contains(err.Error(), "the store is full: raise its quota (25165824 bytes)") {
		t.Fatalf("a full store: %v", err)
	}
	must(t, s.load(t.Context())) // it can still be read
	s.Close()
	cfg.Quota = 1 << 30
	s, err = Open(t.Context(), cfg)
	must(t, err)
	defer s.Close()
	must(t, s.Update(t.Context(), tester, big(1000)))
}

// Of what etcd says under load some means no more than that; the words are those of its log.
func TestSlow(t *testing.T) {
	for message, want := range map[string]bool{
		"apply request took too long": true, "slow fdatasync": true,
		"leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk":             true,
		"waiting for ReadIndex response took too long, retrying":                                                             true,
		"snapshotting taking too long to transfer":                                                                           true,
		"ignored out-of-date read index response; local node read indexes queueing up and waiting to be in sync with leader": true,
		"timed out waiting for read index response (local node might have slow network)":                                     true,
		"failed to detect default host":                                                                                      false, "exceeded recommended request limit": false, "": false,
	} {
		if got := slow(message); got != want {
			t.Errorf("slow(%q) = %t", message, got)
		}
	}
}
