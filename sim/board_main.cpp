// SPDX-License-Identifier: BSD-2-Clause
// The virtual board: a Verilator model of a top (clk_in, rx, tx, led) and a UART on its pins, 8N1
// at DIVISOR clock cycles a bit.
//
//     model DIVISOR IDLE_CYCLES TCP_PORT CLOCK_FILE [+verilator+...]
//
// runs as fast as it can, bridged to a pseudo-terminal and to a TCP port on 127.0.0.1.
// CLOCK_FILE holds 8 bytes; the cycles simulated so far are kept in them, in the machine's order.
// Prints one JSON line with the addresses when it listens and one with its counts at its end.
// Ends on SIGTERM, SIGINT, or when its standard input ends: with whoever started it.
// Bytes from either side go to rx; bytes from tx go to every client there is. One TCP client at
// a time: others are turned away, as a busy serial port would. With no byte on the line for
// IDLE_CYCLES it sleeps, waking for a few cycles now and then, so that nothing is left undone.
//
//     model DIVISOR lockstep [+verilator+...]
//
// runs only when told to, so that simulated time is the caller's. A request on standard input is
// three words of 32 bits (cycles to run, bytes from tx after which to stop before, bytes that
// follow) and bytes for rx, which go out one after the other. The answer on standard output is
// three words (cycles run, bytes for rx still waiting, bytes that follow) and the bytes from tx.

#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pty.h>
#include <string>
#include <sys/mman.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "Vmodel.h"
#include "verilated.h"

namespace {

constexpr int kWakeCycles = 8192;      // before anyone can connect: PLL lock and reset are over
constexpr int kPollCycles = 256;       // cycles between looks at the outside
constexpr int kIdlePollMs = 20;        // the same while asleep
constexpr size_t kQueueBytes = 4096;   // host bytes waiting for the line: then the host waits
constexpr size_t kOutputBytes = 1 << 16;  // device bytes a slow client may leave: more are lost

volatile sig_atomic_t stopping = 0;
void stop(int) { stopping = 1; }

[[noreturn]] void fail(const char *what) {
  std::fprintf(stderr, "virtual board: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

// One place bytes come from and go to. A pty without an open slave, or no TCP client: not there.
struct Client {
  int fd = -1;
  std::string output;

  void send() {
    if (fd < 0) return;
    while (!output.empty()) {
      const ssize_t n = write(fd, output.data(), output.size());
      if (n <= 0) break;
      output.erase(0, static_cast<size_t>(n));
    }
    if (output.size() > kOutputBytes) output.erase(0, output.size() - kOutputBytes);
  }

  // Bytes read; 0 for none now, -1 for the end.
  ssize_t receive(std::deque<uint8_t> &queue) {
    uint8_t bytes[1024];
    const ssize_t n = read(fd, bytes, sizeof bytes);
    if (n > 0) queue.insert(queue.end(), bytes, bytes + n);
    if (n > 0) return n;
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
  }
};

class Outside {
 public:
  explicit Outside(int tcp_port) {
    int slave;
    if (openpty(&pty_.fd, &slave, name_, nullptr, nullptr) < 0) fail("no pseudo-terminal");
    termios mode;
    tcgetattr(slave, &mode);
    cfmakeraw(&mode);
    tcsetattr(slave, TCSANOW, &mode);
    close(slave);  // the master then sees whether a client has it open
    set_nonblocking(pty_.fd);

    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    const int one = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(tcp_port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto *generic = reinterpret_cast<sockaddr *>(&address);
    if (bind(listener_, generic, sizeof address) < 0) fail("cannot take the TCP port");
    if (listen(listener_, 4) < 0) fail("cannot listen");
    socklen_t size = sizeof address;
    getsockname(listener_, generic, &size);
    set_nonblocking(listener_);
    set_nonblocking(STDIN_FILENO);
    std::printf("{\"pty\": \"%s\", \"socket\": \"socket://127.0.0.1:%d\"}\n", name_,
                ntohs(address.sin_port));
    std::fflush(stdout);
  }

  // Moves bytes both ways. Waits up to `wait_ms` for something from outside.
  void exchange(std::deque<uint8_t> &queue, int wait_ms) {
    pollfd watched[4] = {{STDIN_FILENO, POLLIN, 0},
                         {listener_, POLLIN, 0},
                         {tcp_.fd, POLLIN, 0},
                         {pty_open_ ? pty_.fd : -1, POLLIN, 0}};
    if (queue.size() >= kQueueBytes) watched[2].fd = watched[3].fd = -1;
    poll(watched, 4, wait_ms);
    if (watched[0].revents) {
      char ignored[256];
      if (read(STDIN_FILENO, ignored, sizeof ignored) == 0) stopping = 1;
    }
    if (watched[1].revents) accept_client();
    if (watched[2].fd >= 0 && watched[2].revents && tcp_.receive(queue) < 0) {
      close(tcp_.fd);
      tcp_ = Client{};
    }
    // A pty without a client is always "hung up" to poll: look at it without waiting.
    pollfd pty{pty_.fd, POLLIN, 0};
    poll(&pty, 1, 0);
    pty_open_ = !(pty.revents & POLLHUP);
    if ((pty.revents & POLLIN) && queue.size() < kQueueBytes) pty_.receive(queue);
    if (!pty_open_) pty_.output.clear();
    tcp_.send();
    pty_.send();
  }

  void put(uint8_t byte) {
    if (tcp_.fd >= 0) tcp_.output.push_back(static_cast<char>(byte));
    if (pty_open_) pty_.output.push_back(static_cast<char>(byte));
  }

 private:
  void accept_client() {
    const int fd = accept(listener_, nullptr, nullptr);
    if (fd < 0) return;
    if (tcp_.fd >= 0) {
      // The one before may have just been killed, with bytes of its that nobody has read yet.
      pollfd before{tcp_.fd, POLLRDHUP, 0};
      poll(&before, 1, 0);
      if (!(before.revents & (POLLRDHUP | POLLHUP | POLLERR))) {
        close(fd);
        return;
      }
      close(tcp_.fd);
      tcp_ = Client{};
    }
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    set_nonblocking(fd);
    tcp_.fd = fd;
  }

  char name_[128];
  int listener_;
  Client pty_, tcp_;
  bool pty_open_ = false;
};

// The model and the UART on its pins.
class Board {
 public:
  Board(VerilatedContext &context, int divisor) : top_{&context}, divisor_{divisor} {
    top_.clk_in = 0;
    top_.rx = 1;
    top_.eval();
    for (int i = 0; i < 2 * kWakeCycles; i++) {
      top_.clk_in = !top_.clk_in;
      top_.eval();
    }
  }

  ~Board() { top_.final(); }

  std::deque<uint8_t> queue;  // from the host, waiting for the line
  int64_t cycle_count = 0, quiet_count = 0, in_count = 0, out_count = 0;

  // One clock cycle: the byte whose stop bit was seen on tx in it, or -1.
  int cycle() {
    if (send_bits_ == 0 && !queue.empty()) {
      send_shift_ = queue.front() << 1 | 0x200;
      queue.pop_front();
      send_bits_ = 10;
      send_count_ = 0;
      quiet_count = 0;
      in_count++;
    }
    top_.rx = send_bits_ ? send_shift_ & 1 : 1;
    if (send_bits_ && ++send_count_ == divisor_) {
      send_count_ = 0;
      send_shift_ >>= 1;
      send_bits_--;
    }

    top_.clk_in = 1;
    top_.eval();
    top_.clk_in = 0;
    top_.eval();
    cycle_count++;
    quiet_count++;

    if (take_bit_ < 0) {
      if (!top_.tx) {
        take_bit_ = 0;
        take_count_ = divisor_ + divisor_ / 2 - 1;
        take_shift_ = 0;
        quiet_count = 0;
      }
    } else if (--take_count_ <= 0) {
      take_count_ = divisor_;
      if (take_bit_ < 8) {
        take_shift_ |= static_cast<unsigned>(top_.tx) << take_bit_++;
      } else {
        take_bit_ = -1;
        quiet_count = 0;
        if (top_.tx) {  // a stop bit
          out_count++;
          return static_cast<int>(take_shift_);
        }
      }
    }
    return -1;
  }

 private:
  Vmodel top_;
  const int divisor_;
  unsigned send_shift_ = 0, send_bits_ = 0;  // the byte on rx
  int send_count_ = 0;
  int take_bit_ = -1, take_count_ = 0;  // the byte on tx: -1 between bytes
  unsigned take_shift_ = 0;
};

void run_free(Board &board, int64_t idle_cycles, int tcp_port, const char *clock_path) {
  const int clock_file = open(clock_path, O_RDWR);
  void *const shared = mmap(nullptr, 8, PROT_READ | PROT_WRITE, MAP_SHARED, clock_file, 0);
  if (clock_file < 0 || shared == MAP_FAILED) fail("cannot share the clock file");
  volatile int64_t *const clock_cycles = static_cast<int64_t *>(shared);

  Outside outside{tcp_port};
  while (!stopping) {
    if (board.cycle_count % kPollCycles == 0) {
      *clock_cycles = board.cycle_count;
      const bool asleep = board.queue.empty() && board.quiet_count > idle_cycles;
      outside.exchange(board.queue, asleep ? kIdlePollMs : 0);
    }
    const int byte = board.cycle();
    if (byte >= 0) outside.put(static_cast<uint8_t>(byte));
  }
  std::printf("{\"cycles\": %lld, \"bytes_in\": %lld, \"bytes_out\": %lld}\n",
              static_cast<long long>(board.cycle_count), static_cast<long long>(board.in_count),
              static_cast<long long>(board.out_count));
}

void run_in_lockstep(Board &board) {
  uint32_t request[3];
  std::string bytes;
  while (std::fread(request, sizeof request, 1, stdin) == 1) {
    bytes.resize(request[2]);
    if (!bytes.empty() && std::fread(bytes.data(), bytes.size(), 1, stdin) != 1) return;
    board.queue.insert(board.queue.end(), bytes.begin(), bytes.end());
    bytes.clear();
    uint32_t cycle_count = 0;
    while (cycle_count < request[0] && bytes.size() < request[1]) {
      const int byte = board.cycle();
      cycle_count++;
      if (byte >= 0) bytes.push_back(static_cast<char>(byte));
    }
    const uint32_t answer[3] = {cycle_count, static_cast<uint32_t>(board.queue.size()),
                                static_cast<uint32_t>(bytes.size())};
    std::fwrite(answer, sizeof answer, 1, stdout);
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char **argv) {
  const bool in_lockstep = argc >= 3 && !std::strcmp(argv[2], "lockstep");
  if (argc < 5 && !in_lockstep) {
    std::fprintf(stderr, "usage: %s DIVISOR IDLE_CYCLES TCP_PORT CLOCK_FILE\n"
                         "       %s DIVISOR lockstep\n", argv[0], argv[0]);
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGTERM, stop);
  std::signal(SIGINT, stop);

  VerilatedContext context;
  context.commandArgs(argc, argv);
  Board board{context, std::atoi(argv[1])};
  if (in_lockstep)
    run_in_lockstep(board);
  else
    run_free(board, std::atoll(argv[2]), std::atoi(argv[3]), argv[4]);
  return 0;
}
