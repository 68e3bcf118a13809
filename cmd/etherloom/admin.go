package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/client"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/node"
)

// admin is what every administrator's command has.
type admin struct {
	file string
	json bool
}

func (a *admin) flags(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&a.file, "admin", os.Getenv("ETHERLOOM_ADMIN"), "the administrator's credential, admin.json")
	cmd.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
}

func (a *admin) open() (*client.Admin, error) {
	if a.file == "" {
		return nil, errors.New("no credential: name admin.json with --admin or ETHERLOOM_ADMIN; the controller wrote it into its data directory")
	}
	data, err := credential.Read(a.file)
	if err != nil {
		return nil, err
	}
	cred, err := credential.ParseAdmin(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.file, err)
	}
	return client.NewAdmin(cred)
}

// call makes one call and returns its answer.
func call[Req, Resp any](ctx context.Context, a *admin, method func(controlv1connect.AdminServiceClient, context.Context, *Req) (*Resp, error), req *Req) (*Resp, error) {
	c, err := a.open()
	if err != nil {
		return nil, err
	}
	var resp *Resp
	err = c.Do(ctx, func(ctx context.Context, s controlv1connect.AdminServiceClient) error {
		var err error
		resp, err = method(s, ctx, req)
		return err
	})
	return resp, err
}

// show prints an answer as JSON, or as show does.
func (a *admin) show(cmd *cobra.Command, m proto.Message, show func() error) error {
	if !a.json {
		return show()
	}
	data, err := protojson.MarshalOptions{EmitUnpopulated: true, UseProtoNames: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	var v map[string]any
	if err := unmarshalJSON(data, &v); err != nil {
		return err
	}
	v["schema"] = node.Schema
	return printJSON(cmd, v)
}

// lists is a command that asks for a list and prints it: as JSON, or as text does.
func lists[Req, Resp any, Message interface {
	*Resp
	proto.Message
}](a *admin, short string, method func(controlv1connect.AdminServiceClient, context.Context, *Req) (*Resp, error),
	text func(*cobra.Command, *Resp) error,
) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := call(cmd.Context(), a, method, new(Req))
			if err != nil {
				return err
			}
			return a.show(cmd, Message(r), func() error { return text(cmd, r) })
		},
	}
}

func adminCommands() []*cobra.Command {
	a := new(admin)
	list := []*cobra.Command{
		tokenCommand(a), nodeCommand(a), segmentCommand(a), attachmentCommand(a), hostCommand(a), groupCommand(a), grantCommand(a), policyCommand(a), relayAdminCommand(a), auditCommand(a),
	}
	for _, c := range list {
		a.flags(c)
	}
	return list
}

// group is a command that only has commands below it.
func group(use, short string, list ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(list...)
	return cmd
}
