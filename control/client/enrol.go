package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/identity"
)

// Enrolled is what a machine is given when it becomes a node.
type Enrolled struct {
	Leaf        []byte // DER
	CA          []byte // DER
	Certificate *identity.Certificate
	Zone        string
	Controllers []string
	Pending     bool // waits for an administrator's approval
	Locked      bool // a lock selects it already
}

// Enrol makes this machine a node of the network that the token is for. It tries the token's controllers in turn.
func Enrol(ctx context.Context, token identity.Token, name string, keys identity.NodeKeys) (*Enrolled, error) {
	var errs []error
	for _, url := range token.URLs {
		e, err := enrolAt(ctx, url, token, name, keys)
		if err == nil {
			return e, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", url, explain(err)))
		if final(err) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// final reports whether another controller of the network would say the same. One that does not know a token may only
// not have heard of it yet.
func final(err error) bool { return decided(err) && connect.CodeOf(err) != connect.CodeNotFound }

// decided reports whether a controller itself has said no.
func decided(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeUnknown,
		connect.CodeAborted, connect.CodeResourceExhausted, connect.CodeInternal:
		return false
	default:
		return true
	}
}

func enrolAt(ctx context.Context, url string, token identity.Token, name string, keys identity.NodeKeys) (*Enrolled, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	rpc := controlv1connect.NewEnrolServiceClient(clientFor(identity.PinnedTLS(token.Pin)), url)
	begun, err := rpc.Begin(ctx, &controlv1.BeginRequest{Secret: token.Secret[:]})
	if err != nil {
		return nil, err
	}
	proof, err := keys.Prove(token.Secret[:], name, identity.Challenge{Opaque: begun.GetChallenge(), Ephemeral: begun.GetEphemeral()})
	if err != nil {
		return nil, err
	}
	static := keys.StaticPublic()
	r, err := rpc.Enrol(ctx, &controlv1.EnrolRequest{
		Secret: token.Secret[:], Challenge: begun.GetChallenge(), Name: name, SignKey: keys.SignPublic(),
		StaticKey: static[:], Signature: proof.Signature, Mac: proof.MAC,
	})
	if err != nil {
		return nil, err
	}
	return checkEnrolled(r, token, keys)
}

// checkEnrolled verifies what the controller has answered, before anything of it is kept.
func checkEnrolled(r *controlv1.EnrolResponse, token identity.Token, keys identity.NodeKeys) (*Enrolled, error) {
	if err := identity.CheckPin(r.GetCa(), token.Pin); err != nil {
		return nil, err
	}
	v, err := identity.NewVerifier(r.GetCa())
	if err != nil {
		return nil, err
	}
	cert, err := v.Verify([][]byte{r.GetCertificate()}, identity.KindNode, time.Now())
	if err != nil {
		return nil, fmt.Errorf("the certificate that the controller issued: %w", err)
	}
	if !cert.Sign.Equal(keys.SignPublic()) || cert.Static != keys.StaticPublic() {
		return nil, errors.New("the controller has certified other keys than ours")
	}
	return &Enrolled{
		Leaf: r.GetCertificate(), CA: r.GetCa(), Certificate: cert, Zone: r.GetZone(), Controllers: r.GetControllers(),
		Pending: r.GetStatus() == controlv1.NodeStatus_NODE_STATUS_PENDING,
		Locked:  r.GetStatus() == controlv1.NodeStatus_NODE_STATUS_LOCKED,
	}, nil
}

// explain turns what goes wrong below the protocol into what can be done about it.
func explain(err error) error {
	var dns *net.DNSError
	var op *net.OpError
	var ce *connect.Error
	switch {
	case errors.Is(err, identity.ErrPin):
		return identity.ErrPin
	case errors.Is(err, identity.ErrNotYet), errors.Is(err, identity.ErrExpired):
		return fmt.Errorf("the controller's certificate is not valid at this machine's time (%s): set the clock",
			time.Now().Format(time.RFC3339))
	case errors.As(err, &dns):
		return fmt.Errorf("the name %s cannot be resolved: %s", dns.Name, dns.Err)
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("cannot connect: %w; is the controller running, and does a firewall let TCP pass?", op.Err)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer within 15 s: a firewall may drop the packets")
	case errors.As(err, &ce):
		return errors.New(ce.Message())
	}
	return err
}
