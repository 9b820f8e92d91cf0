/*
 * rpc_grpc: the peer: gRPC C++ as Debian ships it, one bidirectional stream with N messages under way, by its completion
 * queue, one thread a side: the cheapest of its ways for small messages (its callback API, with a lock and a pool of
 * threads, takes twice as much here, unary calls three times). A write that has others behind it says so, which
 * lets gRPC gather them.
 *
 * usage: rpc_grpc --flight N --seconds S
 */
#include <grpcpp/grpcpp.h>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>
#include "tests/bench/rpc_load.h"
#include "tests/bench/rpc_grpc.grpc.pb.h"

using rpc_grpc::Message;

static void *const STARTED = (void *)1, *const READ = (void *)2, *const WRITTEN = (void *)3;

/* One end of the stream: a read is always asked for, and a write while something waits, one at a time as gRPC wants it. */
template <class Stream> class End
{
      public:
	explicit End(Stream *stream) : stream_(stream) {}
	void read() { stream_->Read(&in, READ); }
	void write(Message &&m)
	{
		waiting_.push_back(std::move(m));
		if (!writing_)
			written();
	}
	void written()
	{
		grpc::WriteOptions options;
		writing_ = !waiting_.empty();
		if (!writing_)
			return;
		now_ = std::move(waiting_.front());
		waiting_.pop_front();
		if (!waiting_.empty())
			options.set_buffer_hint();
		stream_->Write(now_, options, WRITTEN);
	}
	Message in;

      private:
	Stream *stream_;
	std::deque<Message> waiting_;
	Message now_;
	bool writing_ = false;
};

static void serve(struct load *, int told)
{
	rpc_grpc::Echo::AsyncService service;
	grpc::ServerContext context;
	grpc::ServerAsyncReaderWriter<Message, Message> stream(&context);
	End<decltype(stream)> end(&stream);
	int port = 0;
	grpc::ServerBuilder builder;
	builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
	builder.RegisterService(&service);
	std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
	std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
	if (!server || write(told, &port, sizeof port) < 0)
		exit(2);
	service.Requesttalk(&context, &stream, queue.get(), queue.get(), STARTED);
	void *tag;
	bool ok;
	while (queue->Next(&tag, &ok) && ok) {
		if (tag == READ)
			end.write(std::move(end.in));
		if (tag == WRITTEN)
			end.written();
		else
			end.read();
	}
	exit(0);
}

static Message message(struct load *l, uint32_t id, std::vector<uint64_t> &sent_ns)
{
	Message m;
	m.set_id(id);
	m.set_body(std::string(LOAD_BODY, 'x'));
	sent_ns[id] = load_sent(l);
	return m;
}

int main(int argc, char **argv)
{
	struct load l;
	int told;
	load_options(&l, argc, argv);
	load_fork(&l, serve, &told);
	std::string address = "127.0.0.1:" + std::to_string(load_port(told));
	auto stub = rpc_grpc::Echo::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
	std::vector<uint64_t> sent_ns(l.flight);
	grpc::ClientContext context;
	grpc::CompletionQueue queue;
	auto stream = stub->Asynctalk(&context, &queue, STARTED);
	End<grpc::ClientAsyncReaderWriter<Message, Message>> end(stream.get());
	void *tag;
	bool ok;
	while (queue.Next(&tag, &ok) && ok) {
		if (tag == STARTED) {
			for (uint32_t id = 0; id < l.flight; id++)
				end.write(message(&l, id, sent_ns));
			end.read();
		} else if (tag == WRITTEN) {
			end.written();
		} else {
			if (!load_answered(&l, sent_ns[end.in.id()])) {
				load_report(&l);
				_exit(0);
			}
			end.write(message(&l, end.in.id(), sent_ns));
			end.read();
		}
	}
	return 2;
}
