package embedded

import (
	"context"

	"google.golang.org/grpc"
)

// streamEnder ends the streams of all clients at once. Without it, stopping
// etcd takes seconds while any client watches.
type streamEnder struct {
	ctx context.Context
	end context.CancelFunc
}

func newStreamEnder() *streamEnder {
	ctx, cancel := context.WithCancel(context.Background())
	return &streamEnder{ctx: ctx, end: cancel}
}

func (s *streamEnder) options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainStreamInterceptor(s.intercept)}
}

// intercept serves one stream until the client or we end it.
func (s *streamEnder) intercept(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, serve grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return serve(srv, endedStream{ServerStream: stream, ctx: ctx})
}

// endedStream is a stream with another context.
type endedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s endedStream) Context() context.Context { return s.ctx }
