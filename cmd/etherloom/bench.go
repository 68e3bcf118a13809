package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/internal/bench"
)

func benchCommand() *cobra.Command {
	var seconds float64
	var asJSON bool
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure what this machine can carry; needs no daemon, and root only for the part over a real network",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if seconds < 0.1 || seconds > 60 {
				return fmt.Errorf("--seconds is %g: between 0.1 and 60 are possible", seconds)
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP) // the terminal may go
			defer stop()
			r, failed := bench.Run(ctx, bench.Config{
				Each: time.Duration(seconds * float64(time.Second)), Bin: filepath.Dir(self),
			})
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			show := func() error { return showBench(cmd, r) }
			if asJSON {
				show = func() error { return printJSON(cmd, listing("bench", r)) }
			}
			if err := show(); err != nil {
				return err
			}
			return failed
		},
	}
	cmd.Flags().Float64Var(&seconds, "seconds", 1, "how long each of the seven measurements takes")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func showBench(cmd *cobra.Command, r bench.Result) error {
	out := cmd.OutOrStdout()
	how := "no instructions for AES-GCM"
	if r.Hardware {
		how = "AES-GCM in hardware"
	}
	fmt.Fprintf(out, "processor  %s, cores in use: %d, %s\n", dash(r.Processor), r.Cores, how)
	fmt.Fprintf(out, "cipher     %s, if the peer's processor agrees\n\n", r.Suite)
	if err := table(cmd, "CIPHER SEAL /1472B OPEN /1472B", cipherRows(r.Ciphers)); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := table(cmd, "ONE-CORE OUT IN BOTH-ENDS", frameRows(r)); err != nil {
		return err
	}
	fmt.Fprintf(out, "A core at each end: about %s for one TCP stream.\n"+
		"One core is from a host's port to the loopback interface, or back; TAPs and the host's own TCP come on top.\n\n",
		figure(r.Stream.Estimate, "Mbit/s"))
	if r.Network == nil {
		fmt.Fprintf(out, "Nothing was measured over a real network: %s.\n", r.NoNetwork)
		return nil
	}
	err := table(cmd, "END-TO-END ARRIVED", [][]string{
		{"one TCP stream", figure(r.Network.Stream, "Mbit/s")},
		{"UDP datagrams of 64 bytes", figure(r.Network.Datagrams, "/s")},
	})
	fmt.Fprintf(out, "Both ends and the load shared this machine's %s: a machine that is one end alone carries more.\n", counted(r.Cores, "core", "cores"))
	return err
}

func cipherRows(list []bench.Cipher) (rows [][]string) {
	for _, c := range list {
		rows = append(rows, []string{
			c.Suite, figure(c.SealGB, "GB/s"), figure(c.SealNS, "ns"), figure(c.OpenGB, "GB/s"), figure(c.OpenNS, "ns"),
		})
	}
	return rows
}

func frameRows(r bench.Result) (rows [][]string) {
	for _, f := range r.Frames {
		rows = append(rows, []string{
			fmt.Sprintf("frames of %d bytes", f.Bytes), figure(f.Out, "/s"), figure(f.In, "/s"), figure(f.Both, "/s"),
		})
	}
	s := r.Stream
	return append(rows, []string{"one TCP stream", figure(s.Out, "Mbit/s"), figure(s.In, "Mbit/s"), figure(s.Both, "Mbit/s")})
}

// figure is a number with its unit and three significant digits: more of them is noise.
func figure(v float64, unit string) string {
	if v <= 0 {
		return "0 " + unit
	}
	places := int(math.Floor(math.Log10(v))) - 2
	unitOfLast := math.Pow10(places)
	return strconv.FormatFloat(math.Round(v/unitOfLast)*unitOfLast, 'f', max(0, -places), 64) + " " + unit
}
