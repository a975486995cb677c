# cmake -D OUTPUT=FILE -D FOLDER=DIR -P embed.cmake: writes the scenes of a folder as C++, which makes them part of the
# program.
file(GLOB files ${FOLDER}/*.scene)
set(entries "")
foreach(file IN LISTS files)
  get_filename_component(name ${file} NAME)
  file(READ ${file} text)
  if(NOT text MATCHES "\nlevel: ")
    message(FATAL_ERROR "${name}: a scene that is part of the program names its level")
  endif()
  string(APPEND entries "      {\"${name}\", R\"scene(${text})scene\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Written by embed.cmake.
#include \"scene.hpp\"

namespace conformance {

std::vector<SceneText> built_in_scenes() {
  return {
${entries}  };
}

}  // namespace conformance
")
