// SPDX-License-Identifier: BSL-1.0
// A scene: a transcript of several clients, read from a text file. README.md describes the format.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace conformance {

struct Walk;

/// The longest line of the protocol, including its end.
inline constexpr std::size_t max_line = 255;

/// The notation for bytes in a scene: literal parts, `{words}` that differ in each play, names of users, and `*`.
class Text {
 public:
  /// Returns what a `{word}` stands for in a play.
  using Words = std::function<std::string(std::string const&)>;

  void add(std::string const& bytes, std::size_t times = 1);
  void add_word(std::string const& word);
  void add_any();

  /// Makes a word, `=NAME`, of each of these names that is written out.
  void name_users(std::set<std::string> const& users);

  /// Returns the bytes, with each word replaced. Only for a text without `*`.
  [[nodiscard]] std::string bytes(Words const& words) const;

  /// Whether a line matches the text. Each `*` stands for any bytes, or none.
  [[nodiscard]] bool matches(std::string_view line, Words const& words) const;

  /// Returns the text as written in the scene, with each word replaced.
  [[nodiscard]] std::string shown(Words const& words) const;

  [[nodiscard]] bool empty() const { return parts_.empty(); }
  [[nodiscard]] bool has_any() const;
  [[nodiscard]] bool ends_in_any() const;

 private:
  enum class Kind { bytes, word, any };
  struct Part {
    Kind kind;
    std::string text;
    std::size_t times;
  };
  std::vector<Part> parts_;
};

/// Parses the notation for bytes in a scene. Throws std::invalid_argument.
Text parse_text(std::string_view written);

/// Returns what a `{word}` could stand for in a play, of the right length.
std::string sample_word(std::string const& word);

/// Removes and returns the first word, and one blank after it.
std::string_view cut_word(std::string_view& rest);

enum class Verb {
  connect,   ///< a client connects, to the server under test or to a port named in the scene
  accept,    ///< the scripted server takes the next connection
  run,       ///< a program starts
  send,      ///< bytes are sent: to the other end, or to the program's stdin
  receive,   ///< a whole line comes: from the other end, or from the program's stdout
  maybe,     ///< like receive, but the line may be missing
  same,      ///< the lines of another actor's last merge come, in the same order
  complain,  ///< a whole line comes from the program's stderr
  prompt,    ///< anything comes from the program's terminal, not necessarily a whole line
  eof,       ///< the other end closes in order, with nothing before that
  closed,    ///< like eof, but a reset will do
  close,
  shutdown,  ///< closes the sending direction; of a program: the end of its stdin
  reset,     ///< aborts the connection
  exit,      ///< the program ends with this exit code, with nothing more on its stdout and stderr
  signal,    ///< the program gets a signal
  kill,      ///< the program is killed, and how it ends is not judged
  wait       ///< a part of the login deadline passes
};

struct Step {
  Verb verb{};
  std::size_t line = 0;         ///< line in the file
  std::size_t actor = 0;        ///< index into Scene::actors
  std::size_t other = 0;        ///< same: index of the actor to compare with
  int stream = 0;               ///< receive: number of its stream in a merge; 0 in none
  int number = 0;               ///< exit: code; wait: percent; signal: number
  bool free_stderr = false;     ///< exit: whether anything may be on stderr
  bool narrow = false;          ///< connect: with small buffers
  Text text;                    ///< send, receive, complain, connect: the port
  std::vector<Text> arguments;  ///< run: program and arguments; connect: host, if named
  std::string source;           ///< as written, for the report
};

/// exit: any code except 0.
inline constexpr int nonzero = -1;

enum class Terminal { none, in, out, both };

struct Actor {
  enum class Kind { client, connection, program };
  std::string name;
  Kind kind = Kind::client;
  Terminal terminal = Terminal::none;
};

/// The sender whose texts show that nothing else has come before them.
inline constexpr std::string_view fence_actor = "fence0";

enum class Level { basic, robust, concurrent };
inline constexpr Level all_levels[] = {Level::basic, Level::robust, Level::concurrent};

/// What nearly all scenes rely on. One that cannot rely on it is not played. Each may rely on those before it.
enum class Basis { none, sender, receiver, company, join, delivery, err, names };

struct Scene {
  std::string file;
  std::string name;  ///< of the file, without its extension
  std::string title;
  std::string rule;  ///< section and sentence of protocol.md
  Level level = Level::basic;
  std::string needs;               ///< what the run must provide, else the scene is skipped
  std::string open;                ///< why the protocol leaves this open, in which case a failure does not count
  Basis provides = Basis::none;    ///< what other scenes rely on, if this one has passed
  std::set<Basis> relies_on = {};  ///< computed from the steps
  std::set<std::string> uses;      ///< scenes about what this one only uses: if one fails, a failure here says nothing
  Text must_fail;                  ///< a self-test: how its failure must read; empty: it must not fail
  bool whole_only = false;
  bool is_about_line_ends = true;  ///< else a line of the server may end in \r\n
  bool prompts_anywhere = false;   ///< whether a program's stdout may hold more than what is expected
  int seconds = 0;                 ///< time limit of a step; 0: the run's
  std::vector<Actor> actors;
  std::vector<Step> steps;
  std::shared_ptr<Walk const> walk;  ///< what a generated scene was written from; null for others

  [[nodiscard]] bool starts_program() const;
  /// Whether a program gets a terminal.
  [[nodiscard]] bool needs_terminal() const;
  /// Whether a client of the suite connects to the server under test.
  [[nodiscard]] bool connects() const;
  /// Whether a client or a program connects to the server under test.
  [[nodiscard]] bool needs_server() const;
};

/// Reports a scene file that cannot be read or does not keep the format. what() begins with the file and the line.
struct BadScene : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Parses the text of a scene file. Throws BadScene.
Scene parse_scene(std::string const& file, std::string_view text);

/// Adds to Scene::uses, from the steps.
void find_uses(Scene& scene);

/// Throws BadScene if scenes use each other in a circle.
void check_uses(std::vector<Scene> const& scenes);

/// Returns the name of the scene or profile in a file: the file's, without its folder and extension.
std::string name_in(std::string const& file);

/// What a scene or a profile is read from.
struct FileText {
  std::string file;
  std::string text;
};

/// Returns the scenes about servers, those about what is optional for a server, those about programs, and the profiles
/// that are part of this program. A build step generates these functions from the folders scenes, optional, programs
/// and profiles.
std::vector<FileText> built_in_scenes();
std::vector<FileText> built_in_optional_scenes();
std::vector<FileText> built_in_program_scenes();
std::vector<FileText> built_in_profiles();

/// Throws BadScene if the file cannot be read.
FileText read_file(std::string const& file);

/// Parses a name in which each `*` stands for any bytes.
Text pattern_of(std::string_view name);

/// Returns the texts of the scenes that a name stands for: a file, a folder of *.scene files, or those of the built-in
/// scenes whose names match a pattern with `*`. Throws BadScene if there are none.
std::vector<FileText> find_scenes(std::string const& name, std::vector<FileText> const& built_in);

/// Throws std::invalid_argument.
Level level_of(std::string_view name);

/// Throws std::invalid_argument.
Basis basis_of(std::string_view name);

char const* name_of(Level level);

/// Formats bytes for people, in the notation of scenes. Long ones are shortened.
std::string escaped(std::string_view bytes);

/// Whether a terminal could take some byte of a line as a command: control characters, also the two-byte ones of UTF-8,
/// and bytes that are control characters to a terminal that does not decode UTF-8. A tab is harmless.
bool drives_terminal(std::string_view line);

}  // namespace conformance
