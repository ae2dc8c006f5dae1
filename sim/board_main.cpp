// SPDX-License-Identifier: BSD-2-Clause
// The virtual board: a Verilator model of a top (clk_in, rx, tx, led) with its UART pins bridged
// to a pseudo-terminal and to a TCP port on 127.0.0.1, 8N1 at DIVISOR clock cycles a bit.
//
//     model DIVISOR IDLE_CYCLES TCP_PORT CLOCK_FILE [+verilator+...]
//
// CLOCK_FILE holds 8 bytes; the cycles simulated so far are kept in them, in the machine's order.
// Prints one JSON line with the addresses when it listens and one with its counts at its end.
// Ends on SIGTERM, SIGINT, or when its standard input ends: with whoever started it.
// Bytes from either side go to rx; bytes from tx go to every client there is. One TCP client at
// a time: others are turned away, as a busy serial port would. With no byte on the line for
// IDLE_CYCLES it sleeps, waking for a few cycles now and then, so that nothing is left undone.

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

}  // namespace

int main(int argc, char **argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: %s DIVISOR IDLE_CYCLES TCP_PORT CLOCK_FILE\n", argv[0]);
    return 2;
  }
  const int divisor = std::atoi(argv[1]);
  const int64_t idle_cycles = std::atoll(argv[2]);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGTERM, stop);
  std::signal(SIGINT, stop);

  const int clock_file = open(argv[4], O_RDWR);
  void *const shared = mmap(nullptr, 8, PROT_READ | PROT_WRITE, MAP_SHARED, clock_file, 0);
  if (clock_file < 0 || shared == MAP_FAILED) fail("cannot share the clock file");
  volatile int64_t *const clock_cycles = static_cast<int64_t *>(shared);

  VerilatedContext context;
  context.commandArgs(argc, argv);
  Vmodel board{&context};
  board.clk_in = 0;
  board.rx = 1;
  board.eval();

  for (int i = 0; i < 2 * kWakeCycles; i++) {
    board.clk_in = !board.clk_in;
    board.eval();
  }

  Outside outside{std::atoi(argv[3])};
  std::deque<uint8_t> queue;                            // from the host, waiting for the line
  unsigned send_shift = 0, send_bits = 0, send_count = 0;  // the byte on rx
  int take_bit = -1, take_count = 0;                    // the byte on tx: -1 between bytes
  unsigned take_shift = 0;
  int64_t cycle_count = 0, quiet_count = 0, in_count = 0, out_count = 0;

  while (!stopping) {
    if (cycle_count % kPollCycles == 0) {
      *clock_cycles = cycle_count;
      outside.exchange(queue, queue.empty() && quiet_count > idle_cycles ? kIdlePollMs : 0);
    }

    if (send_bits == 0 && !queue.empty()) {
      send_shift = queue.front() << 1 | 0x200;
      queue.pop_front();
      send_bits = 10;
      send_count = 0;
      quiet_count = 0;
      in_count++;
    }
    board.rx = send_bits ? send_shift & 1 : 1;
    if (send_bits && ++send_count == static_cast<unsigned>(divisor)) {
      send_count = 0;
      send_shift >>= 1;
      send_bits--;
    }

    board.clk_in = 1;
    board.eval();
    board.clk_in = 0;
    board.eval();
    cycle_count++;
    quiet_count++;

    if (take_bit < 0) {
      if (!board.tx) {
        take_bit = 0;
        take_count = divisor + divisor / 2 - 1;
        take_shift = 0;
        quiet_count = 0;
      }
    } else if (--take_count <= 0) {
      take_count = divisor;
      if (take_bit < 8) {
        take_shift |= static_cast<unsigned>(board.tx) << take_bit++;
      } else {
        if (board.tx) {  // a stop bit
          outside.put(static_cast<uint8_t>(take_shift));
          out_count++;
        }
        take_bit = -1;
        quiet_count = 0;
      }
    }
  }
  board.final();
  std::printf("{\"cycles\": %lld, \"bytes_in\": %lld, \"bytes_out\": %lld}\n",
              static_cast<long long>(cycle_count), static_cast<long long>(in_count),
              static_cast<long long>(out_count));
  return 0;
}
