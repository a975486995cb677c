# cmake -D OUTPUT=FILE -D FOLDER=DIR -P embed.cmake: writes the scenes and profiles below a folder as C++, which makes
# them part of the program.
function(embed function pattern)
  file(GLOB files ${FOLDER}/${pattern})
  set(entries "")
  foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME)
    file(READ ${file} text)
    if(pattern MATCHES "^(scenes|optional)/" AND NOT text MATCHES "\nlevel: ")
      message(FATAL_ERROR "${name}: a scene that is part of the program names its level")
    endif()
    string(APPEND entries "      {\"${name}\", R\"scene(${text})scene\"},\n")
  endforeach()
  set(functions "${functions}
std::vector<FileText> ${function}() {
  return {
${entries}  };
}
" PARENT_SCOPE)
endfunction()

set(functions "")
embed(built_in_scenes scenes/*.scene)
embed(built_in_optional_scenes optional/*.scene)
embed(built_in_program_scenes programs/*.scene)
embed(built_in_profiles profiles/*.profile)
file(WRITE ${OUTPUT} "// Written by embed.cmake.
#include \"scene.hpp\"

namespace conformance {
${functions}
}  // namespace conformance
")
