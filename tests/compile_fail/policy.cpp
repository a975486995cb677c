// SPDX-License-Identifier: BSL-1.0
// A valid threading policy, unless a macro is defined that spoils it.
#include <asio/any_io_executor.hpp>
#include <asio/io_context.hpp>

#include <chatproto/server.hpp>

#ifndef EXECUTOR_TYPE
#define EXECUTOR_TYPE executor_type
#endif
#ifndef NEXT_EXECUTOR
#define NEXT_EXECUTOR next_executor
#endif
#ifndef EXECUTOR
#define EXECUTOR EXECUTOR_TYPE
#endif
#ifndef JOIN
#define JOIN join
#endif

class CallerRuns {
 public:
  using EXECUTOR_TYPE = asio::io_context::executor_type;
  EXECUTOR NEXT_EXECUTOR() { return context_.get_executor(); }
  void JOIN() { context_.run(); }

 private:
  asio::io_context context_;
};

template class chatproto::Server<CallerRuns>;
